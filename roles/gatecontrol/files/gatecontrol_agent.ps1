# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
<#
.SYNOPSIS
The agent of a Windows host enrolled into GateControl.

.DESCRIPTION
  show [-Json]      the host's state, for a person or a program
  beat [-Json]      report to the server, and ask for a new config when that is due (the scheduled task does it)
  sync [-Json]      the same, and ask for a new config now
  verify WANTED     compare the host with what a play wants (base64 of JSON); changes nothing
  change WANTED     have the tunnel run the candidate, or have it gone: arm the change and start it (base64 of JSON)
  confirm WORD      the controller came back: hand out the word that confirms the change under way, or take it, or give its verdict
  checked           the controller asked the server for this host: note the time
  apply | restore   the work of the scheduled tasks: take the armed change; end one that was interrupted
  protect           make the agent's folder, which only SYSTEM and the administrators can read
  read [FILE]       the texts of the host's files, and of a token's file, for a play
  store -Texts ...  write and remove such files (JSON: name to text or null)
  remove            take everything away that the collection keeps on this host

With -WhatIf, store, protect, change and remove only tell what they would do.

For Windows PowerShell 5.1 and PowerShell 7. The files and their JSON are those of the agent on Linux.
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [Parameter(Position = 0)]
    [ValidateSet('show', 'beat', 'sync', 'verify', 'change', 'confirm', 'checked', 'apply', 'restore', 'protect', 'read', 'store', 'remove')]
    [string] $Command = 'show',
    [Parameter(Position = 1)] [string] $Word = '',
    [string] $Root = '',
    [switch] $Json,
    [Security.SecureString] $Texts
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$OnWindows = [Environment]::OSVersion.Platform -eq 'Win32NT'
if (-not $Root) {
    $Root = if ($OnWindows) { Join-Path ([Environment]::GetFolderPath('CommonApplicationData')) 'GateControl' } else { '/var/lib/gatecontrol' }
}
$Version = '1.0.0'  # of the collection
$Check = [bool] $WhatIfPreference  # a play's check mode
$Marker = 'gatecontrol-agent:'
$Agent = Join-Path $Root 'gatecontrol_agent.ps1'
$Tasks = '\GateControl\'
$HandshakeFresh = 180  # seconds
$SilentMost = 86400    # seconds for which a rate limit is believed
$RefusedWait = 300, 21600  # seconds before a config that failed is tried again: doubled from the first to the second
$Unreached = 'network', 'proxy', 'tls', 'redirect', 'protocol', 'server', 'options'  # errors that prove no way to the server
$Utf8 = New-Object Text.UTF8Encoding($false)
$FileNames = @{
    enrollment = 'enrollment.json'; token = 'token'; settings = 'settings.json'; intent = 'intent.json'; issued = 'issued.conf'; offered = 'offered.conf'
    candidate = 'candidate.conf'; last_good = 'last_good.conf'; pending = 'pending.json'; confirm = 'confirm'; verdict = 'verdict.json'; state = 'state.json'
}

# What this run knows. One object that functions change in place: as a play's script, this has no script scope of its own.
$Run = @{ requests = 0; settings = @{}; enrollment = @{}; interface = 'wg0'; token = '' }

# ---------------------------------------------------------------- small functions

function Get-Now { [Math]::Round(([DateTime]::UtcNow - [DateTime]'1970-01-01').TotalSeconds, 3) }

function Get-Digest([string] $Text) {
    $sha = [Security.Cryptography.SHA256]::Create()
    try { return -join ($sha.ComputeHash($Utf8.GetBytes($Text)) | ForEach-Object { $_.ToString('x2') }) } finally { $sha.Dispose() }
}

# A failure with a kind that a program can decide on.
function New-Failure([string] $Message, [string] $Kind, $Status = $null, $RetryAfter = $null) {
    $failure = New-Object InvalidOperationException($Message)
    $failure.Data['kind'] = $Kind
    $failure.Data['status'] = $Status
    $failure.Data['retry_after'] = $RetryAfter
    return $failure
}

# ConvertFrom-Json's objects as hashtables and arrays, in which a key that is missing is no error.
function ConvertTo-Plain($Value) {
    if ($Value -is [Management.Automation.PSCustomObject]) {
        $table = @{}
        foreach ($property in $Value.PSObject.Properties) { $table[$property.Name] = ConvertTo-Plain $property.Value }
        return $table
    }
    if ($Value -is [object[]]) { return , @($Value | ForEach-Object { ConvertTo-Plain $_ }) }
    return $Value
}

function ConvertFrom-JsonText([string] $Text) {
    try { $value = ConvertTo-Plain (ConvertFrom-Json -InputObject $Text) } catch { return $null }
    if ($value -is [hashtable]) { return $value }
    return $null
}

# ASCII only, whatever the console's code page.
function ConvertTo-JsonText($Table) {
    if ($null -eq $Table) { return 'null' }
    $text = ConvertTo-Json -InputObject $Table -Depth 10 -Compress
    return [regex]::Replace($text, '[^\x00-\x7e]', { param($found) '\u{0:x4}' -f [int] [char] $found.Value })
}

# ---------------------------------------------------------------- the host's files

function Get-StorePath([string] $Name) { Join-Path $Root $FileNames[$Name] }

function Read-TextFile([string] $Path) {
    if (-not [IO.File]::Exists($Path)) { return $null }
    return $Utf8.GetString([IO.File]::ReadAllBytes($Path))
}

function Read-StoreText([string] $Name) { Read-TextFile (Get-StorePath $Name) }

# A named file's object, an empty one where there is none or it is damaged.
function Read-StoreTable([string] $Name) {
    $text = Read-StoreText $Name
    $table = if ($text) { ConvertFrom-JsonText $text } else { $null }
    if ($null -eq $table) { return @{} }
    return $table
}

# The whole file or nothing: a temporary file in the same folder, flushed to the disk, then put in its place.
function Write-TextFile([string] $Path, [string] $Text) {
    $folder = [IO.Path]::GetDirectoryName($Path)
    [void] [IO.Directory]::CreateDirectory($folder)
    $temporary = Join-Path $folder ('.gatecontrol.' + [Guid]::NewGuid().ToString('N'))
    try {
        $stream = New-Object IO.FileStream($temporary, [IO.FileMode]::CreateNew, [IO.FileAccess]::Write)
        try {
            $bytes = $Utf8.GetBytes($Text)
            $stream.Write($bytes, 0, $bytes.Length)
            $stream.Flush($true)
        } finally { $stream.Dispose() }
        if ([IO.File]::Exists($Path)) { [IO.File]::Replace($temporary, $Path, [NullString]::Value) } else { [IO.File]::Move($temporary, $Path) }
    } finally { Remove-TextFile $temporary }
}

function Write-StoreText([string] $Name, [string] $Text) { Write-TextFile (Get-StorePath $Name) $Text }

function Write-StoreTable([string] $Name, $Table) { Write-StoreText $Name ((ConvertTo-JsonText $Table) + "`n") }

function Remove-TextFile([string] $Path) { if ([IO.File]::Exists($Path)) { [IO.File]::Delete($Path) } }

function Remove-StoreFile([string[]] $Names) { foreach ($name in $Names) { Remove-TextFile (Get-StorePath $name) } }

function Get-Value($Table, [string] $Name, $Default) {
    if ($Table.ContainsKey($Name) -and $null -ne $Table[$Name]) { return $Table[$Name] }
    return $Default
}

# What the last beat left behind; what is damaged counts as forgotten.
function Get-Memory {
    $known = Read-StoreTable 'state'
    $memory = @{}
    foreach ($key in 'not_before', 'last_try', 'last_beat', 'last_check', 'connected_since', 'requests') {
        $value = $known[$key]
        if (($value -is [int] -or $value -is [long] -or $value -is [double] -or $value -is [decimal]) -and $value -ge 0 -and $value -lt 1e11) {
            $memory[$key] = $value
        }
    }
    if ($known['peer_enabled'] -is [bool]) { $memory['peer_enabled'] = $known['peer_enabled'] }
    if ($known['reported'] -is [string]) { $memory['reported'] = $known['reported'] }
    $failure = $known['error']
    if ($failure -is [hashtable] -and $failure['kind'] -is [string] -and $failure['text'] -is [string]) { $memory['error'] = $failure }
    $refused = $known['refused']
    if ($refused -is [hashtable] -and $refused['hash'] -is [string] -and $null -ne $refused['wait'] -and $null -ne $refused['again']) {
        $memory['refused'] = $refused
    }
    return $memory
}

function Get-MachineFingerprint {
    $guid = if ($OnWindows) {
        (Get-ItemProperty -LiteralPath 'HKLM:\SOFTWARE\Microsoft\Cryptography' -Name MachineGuid).MachineGuid
    } else { Read-TextFile '/etc/machine-id' }
    return Get-Digest (([string] $guid).Trim().ToLowerInvariant())
}

function Get-HostName { [Environment]::MachineName.Split('.')[0].ToLowerInvariant() }

# ---------------------------------------------------------------- the config: parsed from an allowlist, checked, rendered anew

function ConvertTo-Address([string] $Text) {
    $address = $null
    $dotted = $Text -match '^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$'
    if (($dotted -or $Text -match '^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$') -and [Net.IPAddress]::TryParse($Text, [ref] $address)) { return $address }
    throw "has $Text, which is not an IP address or network"
}

# ADDRESS/PREFIX; as a network the bits behind the prefix are cleared.
function ConvertTo-Prefixed([string] $Text, [bool] $Network) {
    $parts = $Text.Split('/')
    $address = ConvertTo-Address $parts[0]
    $bytes = $address.GetAddressBytes()
    $prefix = $bytes.Length * 8
    if ($parts.Length -gt 2 -or ($parts.Length -eq 2 -and ($parts[1] -notmatch '^\d{1,3}$' -or [int] $parts[1] -gt $prefix))) {
        throw "has $Text, which is not an IP address or network"
    }
    if ($parts.Length -eq 2) { $prefix = [int] $parts[1] }
    if ($Network) {
        for ($bit = $prefix; $bit -lt $bytes.Length * 8; $bit++) {
            $index = [int] [Math]::Floor($bit / 8)
            $bytes[$index] = $bytes[$index] -band (-bnot (128 -shr ($bit % 8)) -band 255)
        }
        $address = New-Object Net.IPAddress(, $bytes)
    }
    return '{0}/{1}' -f $address, $prefix
}

function Test-Inside([string] $Text, $Rules) {
    $parts = (ConvertTo-Prefixed $Text $true).Split('/')
    foreach ($rule in $Rules) {
        try { $bound = (ConvertTo-Prefixed ([string] $rule) $true).Split('/') } catch { continue }
        $same = (ConvertTo-Address $bound[0]).AddressFamily -eq (ConvertTo-Address $parts[0]).AddressFamily
        if (-not $same -or [int] $bound[1] -gt [int] $parts[1]) { continue }
        if ((ConvertTo-Prefixed ($parts[0] + '/' + $bound[1]) $true) -eq ($bound -join '/')) { return $true }
    }
    return $false
}

function ConvertTo-Key([string] $Text) {
    if ($Text -notmatch '^[A-Za-z0-9+/]{43}=$') { throw 'is not a key of 32 bytes in base64' }
    $bytes = [Convert]::FromBase64String($Text)
    if ([Convert]::ToBase64String($bytes) -cne $Text) { throw 'is not a key of 32 bytes in base64' }
    if (@($bytes | Where-Object { $_ -ne 0 }).Count -eq 0) { throw 'is all zeros, which would erase the key' }
    return $Text
}

# A number as text; $null where it means "not set".
function ConvertTo-Number([string] $Text, [long] $Low, [long] $High) {
    $said = $Text.ToLowerInvariant()
    if ($said -eq 'off' -or $said -eq 'auto') { return $null }
    if ($said -notmatch '^([0-9]{1,10}|0x[0-9a-f]{1,8})$') { throw 'is not a number' }
    $number = if ($said.StartsWith('0x')) { [Convert]::ToInt64($said.Substring(2), 16) } else { [long] $said }
    if ($number -and ($number -lt $Low -or $number -gt $High)) { throw "is not between $Low and $High" }
    if ($number) { return [string] $number }
    return $null
}

function ConvertTo-Server([string] $Text) {
    if ($Text -match '^([0-9.]+|.*:.*)$') { return (ConvertTo-Address $Text).ToString() }
    $label = '[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?'
    if ($Text.Length -gt 253 -or $Text -notmatch "^$label(\.$label)*\.?$") { throw "has $Text, which is neither an address nor a domain" }
    return $Text
}

function ConvertTo-Endpoint([string] $Text) {
    $found = [regex]::Match($Text, '^(?:\[([0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*)\]|([^\[\]]+)):([0-9]{1,5})$')
    if (-not $found.Success) { throw 'is not HOST:PORT' }
    $name = $found.Groups[1].Value + $found.Groups[2].Value
    $port = [int] $found.Groups[3].Value
    if ($port -lt 1 -or $port -gt 65535) { throw 'has a port that is not between 1 and 65535' }
    $name = ConvertTo-Server $name
    if ($name.Contains(':')) { return "[${name}]:$port" }
    return "${name}:$port"
}

$Keys = @{
    interface = 'PrivateKey', 'Address', 'DNS', 'MTU', 'Table', 'ListenPort', 'FwMark'
    peer = 'PublicKey', 'PresharedKey', 'Endpoint', 'AllowedIPs', 'PersistentKeepalive'
}
$Hooks = 'PreUp', 'PostUp', 'PreDown', 'PostDown'
$Lists = 'Address', 'DNS', 'AllowedIPs'

function ConvertTo-Setting([string] $Name, [string] $Text) {
    switch ($Name) {
        'Address' { return ConvertTo-Prefixed $Text $false }
        'AllowedIPs' { return ConvertTo-Prefixed $Text $true }
        'DNS' { return ConvertTo-Server $Text }
        'Endpoint' { return ConvertTo-Endpoint $Text }
        'MTU' { return ConvertTo-Number $Text 576 65535 }
        'ListenPort' { return ConvertTo-Number $Text 1 65535 }
        'PersistentKeepalive' { return ConvertTo-Number $Text 1 65535 }
        'FwMark' { return ConvertTo-Number $Text 1 4294967295 }
        'Table' {
            if ($Text -eq 'off') { return 'off' }
            if ($Text -eq 'main') { return '254' }
            return ConvertTo-Number $Text 1 4294967295
        }
        default { return ConvertTo-Key $Text }
    }
}

# Put a value into a section; a key of $Lists grows, without doubles.
function Add-Setting($Section, [string] $Name, [string] $Text) {
    if ($Text.Contains('<') -and $Text.Contains('>')) { throw 'is a placeholder, so the server could not fill it in' }
    if ($Text -match '[^\x20-\x7e\t]') { throw 'has a character outside ASCII' }
    if ($Lists -contains $Name) {
        $values = New-Object Collections.ArrayList
        if ($Section.ContainsKey($Name)) { $values.AddRange(@($Section[$Name])) }
        foreach ($part in ($Text -split '[,\s]+')) {
            if ($part) {
                $value = ConvertTo-Setting $Name $part
                if (-not $values.Contains($value)) { [void] $values.Add($value) }
            }
        }
        if ($values.Count) { $Section[$Name] = $values.ToArray() }
        return
    }
    $value = ConvertTo-Setting $Name $Text
    if ($null -ne $value) { $Section[$Name] = $value }
}

# @{interface; peers} of a config's text, each a hashtable by canonical key. Throws for anything that is not on the allowlist.
function ConvertFrom-ConfigText([string] $Text, [bool] $AllowHooks) {
    if (-not $Text.Trim()) { throw 'the config is empty' }
    if (-not $Text.EndsWith("`n")) { throw 'the text is truncated: no line end after the last line' }
    $config = @{ interface = $null; peers = @() }
    $section = $null
    $kind = ''
    $seen = @()
    $number = 0
    foreach ($raw in $Text.Split("`n")) {
        $number++
        if ($raw -match '[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]') { throw "line ${number}: a control character" }
        $line = $raw.Split('#')[0].Trim(' ', "`t")
        if (-not $line) { continue }
        if ($line.StartsWith('[')) {
            $section = @{}
            $seen = @()
            if ($line -eq '[interface]' -and $null -eq $config.interface) { $kind = 'interface'; $config.interface = $section }
            elseif ($line -eq '[peer]') { $kind = 'peer'; $config.peers += , $section }
            elseif ($line -eq '[interface]') { throw "line ${number}: a second [Interface]" }
            else { throw "line ${number}: a section other than [Interface] and [Peer]" }
            continue
        }
        $at = $line.IndexOf('=')
        if ($null -eq $section -or $at -lt 0) { throw "line ${number}: not KEY = VALUE in a section" }
        $given = $line.Substring(0, $at).Trim(' ', "`t")
        $value = $line.Substring($at + 1).Trim(' ', "`t")
        $name = @($Keys[$kind] + $Hooks | Where-Object { $_ -eq $given })
        if (-not $name.Count) { throw "line ${number}: a key that is not allowed in [$kind]" }
        $name = $name[0]
        if ($Hooks -contains $name) {
            if (-not $AllowHooks) { throw "line ${number}: $name is a hook; it is refused unless hooks are allowed" }
            if ($kind -ne 'interface') { throw "line ${number}: $name is not allowed in [$kind]" }
            if ($value) { $section[$name] = @(Get-Value $section $name @()) + $value }
            continue
        }
        if ($seen -contains $name -and $Lists -notcontains $name) { throw "line ${number}: a second $name" }
        $seen += $name
        try { Add-Setting $section $name $value } catch { throw "line ${number}: $name $($_.Exception.Message)" }
    }
    return Assert-Complete $config
}

# The config itself; throws where something is missing or contradicts itself.
function Assert-Complete($Config) {
    if ($null -eq $Config.interface -or -not $Config.peers.Count) { throw 'the config has no [Interface] or no [Peer]' }
    foreach ($name in 'PrivateKey', 'Address') { if (-not $Config.interface.ContainsKey($name)) { throw "[Interface] has no $name" } }
    foreach ($name in 'PublicKey', 'AllowedIPs') {
        $values = @()
        foreach ($peer in $Config.peers) {
            if (-not $peer.ContainsKey($name)) { throw "[Peer] has no $name" }
            $values += $peer[$name]
        }
        if (@($values | Select-Object -Unique).Count -lt $values.Count) { throw "two [Peer] sections share a value of $name" }
    }
    return $Config
}

function ConvertTo-ConfigText($Config, [string[]] $Names) {
    $parts = @()
    $sections = @(, @('[Interface]', $Config.interface, $Names))
    foreach ($peer in $Config.peers) { $sections += , @('[Peer]', $peer, $Keys['peer']) }
    foreach ($section in $sections) {
        $text = $section[0] + "`n"
        foreach ($name in $section[2]) {
            if ($section[1].ContainsKey($name)) {
                $values = if ($Hooks -contains $name) { $section[1][$name] } else { , (@($section[1][$name]) -join ', ') }
                foreach ($value in $values) { $text += "$name = $value`n" }
            }
        }
        $parts += $text
    }
    return $parts -join "`n"
}

function Get-PolicyList($Policy, [string] $Name) {
    $value = $Policy[$Name]
    if ($value -is [string]) { $value = @($value.Split(',') | ForEach-Object { $_.Trim() } | Where-Object { $_ }) }
    return , $value
}

# The file that belongs to a server's text under the local policy of the settings.
function Get-RenderedConfig([string] $Offered) {
    $policy = Get-Value (Read-StoreTable 'settings') 'policy' @{}
    $config = ConvertFrom-ConfigText $Offered ([bool] $policy['allow_hooks'])
    $allowed = Get-PolicyList $policy 'allowed_ips'
    if ($null -ne $allowed -and $config.peers.Count -gt 1) { throw "allowed IPs cannot be overridden in a config with $($config.peers.Count) peers" }
    $overrides = @(, @($config.interface, 'DNS', (Get-PolicyList $policy 'dns')))
    $options = @{ MTU = 'mtu'; Table = 'table'; FwMark = 'fwmark'; ListenPort = 'listen_port' }
    foreach ($name in $options.Keys) { $overrides += , @($config.interface, $name, $policy[$options[$name]]) }
    foreach ($peer in $config.peers) {
        $overrides += , @($peer, 'AllowedIPs', $allowed)
        $overrides += , @($peer, 'PersistentKeepalive', $policy['persistent_keepalive'])
    }
    foreach ($override in $overrides) {
        if ($null -ne $override[2]) {
            $override[0].Remove($override[1])
            try { Add-Setting $override[0] $override[1] (@($override[2]) -join ',') } catch {
                throw "the local value of $($override[1]) $($_.Exception.Message)"
            }
        }
    }
    Assert-Policy $config $policy
    # WireGuard for Windows knows no FwMark and no Table but "off"; a /0 turns its kill switch on, the two halves route the same.
    $config.interface.Remove('FwMark')
    if ((Get-Value $config.interface 'Table' '') -ne 'off') { $config.interface.Remove('Table') }
    $halves = @{ '0.0.0.0/0' = '0.0.0.0/1', '128.0.0.0/1'; '::/0' = '::/1', '8000::/1' }
    foreach ($peer in $config.peers) {
        if (-not $policy['kill_switch']) {
            $peer['AllowedIPs'] = @($peer['AllowedIPs'] | ForEach-Object { if ($halves.ContainsKey($_)) { $halves[$_] } else { $_ } } | Select-Object -Unique)
        }
    }
    return ConvertTo-ConfigText (Assert-Complete $config) ($Keys['interface'] + $Hooks)
}

# Throws where a config leaves the local bounds.
function Assert-Policy($Config, $Policy) {
    $endpoints = Get-PolicyList $Policy 'allow_endpoints'
    $allowed = Get-PolicyList $Policy 'allow_allowed_ips'
    $servers = Get-PolicyList $Policy 'allow_dns'
    foreach ($peer in $Config.peers) {
        if ($null -ne $endpoints -and $peer.ContainsKey('Endpoint')) {
            $name = ($peer['Endpoint'] -replace ':\d+$', '').Trim('[', ']')
            $literal = $name -match '^([0-9.]+|.*:.*)$'
            if ($endpoints -notcontains $name -and $endpoints -notcontains $peer['Endpoint'] -and -not ($literal -and (Test-Inside $name $endpoints))) {
                throw "the endpoint $($peer['Endpoint']) is not one of the allowed endpoints"
            }
        }
        foreach ($network in $peer['AllowedIPs']) {
            if ($null -ne $allowed -and -not (Test-Inside $network $allowed)) { throw "$network in AllowedIPs is outside the allowed networks" }
        }
    }
    if ($null -eq $servers) { return }
    foreach ($entry in @(Get-Value $Config.interface 'DNS' @())) {
        $literal = $entry -match '^([0-9.]+|.*:.*)$'
        if (-not $(if ($literal) { Test-Inside $entry $servers } else { $servers -contains $entry })) { throw "the DNS entry $entry is not allowed" }
    }
}

# ---------------------------------------------------------------- the server

# What the server says, told apart by its fixed English texts: pattern, kind, advice.
$Forbidden = @(
    @('permission for this resource', 'scope', 'the token needs the scope client (peers on the 1.5.2 era): create one that has it'),
    @('forbidden for token', 'scope', 'no token may do this'),
    @('user account is disabled', 'user_disabled', 'enable the user the token belongs to'),
    @('not bound to a peer', 'unbound', 'the peer was deleted, or this token never had one: run the play with a secret for this host to enroll it again'),
    @('not authorized for this peer', 'wrong_peer', 'the token belongs to another peer: give this host a token of its own'),
    @('bound to a different peer', 'bound_elsewhere', 'two hosts registered with one token: give each host a token of its own'),
    @('different machine', 'machine_binding', 'reset the token''s machine binding in the web interface'),
    @('fingerprint', 'machine_binding', 'the server binds tokens to machines')
)

function Get-ServerFailure([string] $What, [int] $Status, [string] $Text, $Headers) {
    $body = if ($Text) { ConvertFrom-JsonText $Text } else { $null }
    if ($null -eq $body) { $body = @{} }
    $said = if ($body['error'] -is [string]) { ($body['error'] -replace '[^\x20-\x7e]', ' ') } else { 'no reason' }
    $said = $said.Substring(0, [Math]::Min(300, $said.Length))
    $kind, $advice, $wait = 'protocol', 'check gatecontrol_url and what stands between', $null
    if ($Status -eq 401) { $kind, $advice = 'auth', 'check that the token is complete, not expired and not revoked' }
    elseif ($Status -eq 403) {
        $kind, $advice = 'forbidden', 'check the token''s rights in the web interface'
        foreach ($row in $Forbidden) { if ($said -match [regex]::Escape($row[0])) { $kind, $advice = $row[1], $row[2]; break } }
    } elseif ($Status -eq 404 -and $body.ContainsKey('ok')) {
        $kind, $advice = 'not_found', 'the peer was deleted: run the play with a secret for this host to enroll it again'
    } elseif ($Status -eq 404) { $kind, $advice = 'endpoint_missing', 'gatecontrol_url may not be a GateControl server' }
    elseif ($Status -eq 429) {
        $wait = 60
        foreach ($name in 'RateLimit-Reset', 'Retry-After') { if ([string] $Headers[$name] -match '^\d{1,6}$') { $wait = [int] $Headers[$name] } }
        $kind, $advice = 'rate_limited', "come back in $wait s"
    } elseif ($Status -ge 500) { $kind, $advice = 'server', 'look into the server''s log and run again' }
    return New-Failure "$What failed: the server says `"$said`" ($Status); $advice" $kind $Status $wait
}

# One request; returns the object. Throws failures with the kinds of the agent on Linux.
function Send-Request([string] $What, [string] $Method, [string] $Path, $Body) {
    $url = ([string] $Run.enrollment['url']).TrimEnd('/')
    $uri = [Uri] ($url + '/api/v1/client' + $Path)
    if ($uri.Scheme -eq 'http' -and -not $uri.IsLoopback -and -not $Run.settings['allow_http']) {
        throw (New-Failure "refusing to send a token over plain http to $($uri.Authority); use https, or set gatecontrol_allow_http" 'options')
    }
    $request = [Net.HttpWebRequest] [Net.WebRequest]::Create($uri)
    $request.Method = $Method
    $request.AllowAutoRedirect = $false
    $request.Timeout = $request.ReadWriteTimeout = 1000 * (Get-Value $Run.settings 'timeout' 15)
    $request.Accept = 'application/json'
    $request.UserAgent = "callmetechie.gatecontrol/$Version"
    # Proxies of the environment or of a user are not used.
    $request.Proxy = New-Object Net.WebProxy
    $proxy = [string] (Get-Value $Run.settings 'proxy' '')
    $excluded = @(([string] (Get-Value $Run.settings 'no_proxy' '')).Replace(' ', '').ToLowerInvariant().Split(',') | ForEach-Object { $_.TrimStart('.') } |
            Where-Object { $_ -and ($_ -eq '*' -or $uri.Host -eq $_ -or $uri.Host.EndsWith('.' + $_)) })
    if ($proxy -and -not $excluded.Count) {
        if ($proxy -notmatch '//') { $proxy = 'http://' + $proxy }
        $via = [Uri] $proxy
        $request.Proxy = New-Object Net.WebProxy(('http://' + $via.Authority), $false)
        if ($via.UserInfo) {
            $login = @($via.UserInfo.Split(':', 2) + '' | ForEach-Object { [Uri]::UnescapeDataString($_) })
            $request.Proxy.Credentials = New-Object Net.NetworkCredential($login[0], $login[1])
        }
    }
    $headers = @{
        authorization = @('Authorization', "Bearer $($Run.token)"); 'x-api-token' = @('X-API-Token', $Run.token); 'x-api-key' = @('X-API-Key', $Run.token)
    }[[string] (Get-Value $Run.settings 'auth_header' 'authorization')]
    $request.Headers.Add($headers[0], $headers[1])
    $request.Headers.Add('Accept-Language', 'en')
    $request.Headers.Add('X-Client-Platform', 'windows')
    $request.Headers.Add('X-Machine-Fingerprint', $Run.enrollment['fingerprint'])
    if (Get-Value $Run.settings 'send_version' $true) { $request.Headers.Add('X-Client-Version', $Version) }
    $Run.requests++
    try {
        if ($null -ne $Body) {
            $bytes = $Utf8.GetBytes((ConvertTo-JsonText $Body))
            $request.ContentType = 'application/json'
            $request.ContentLength = $bytes.Length
            $stream = $request.GetRequestStream()
            try { $stream.Write($bytes, 0, $bytes.Length) } finally { $stream.Dispose() }
        }
        $response = $request.GetResponse()
    } catch {
        # PowerShell wraps what a method throws.
        $err = $_.Exception
        while ($err -isnot [Net.WebException] -and $null -ne $err.InnerException) { $err = $err.InnerException }
        if ($err -isnot [Net.WebException] -or $null -eq $err.Response) {
            $kind = if ($err -is [Net.WebException] -and @('TrustFailure', 'SecureChannelFailure') -contains [string] $err.Status) { 'tls' } else { 'network' }
            $inner = $err
            while ($null -ne $inner.InnerException) {
                $inner = $inner.InnerException
                if ($inner -is [Security.Authentication.AuthenticationException]) { $kind = 'tls' }
            }
            $advice = 'check the address, the network and the server'
            if ($kind -eq 'tls') { $advice = 'the authority of its certificate has to be in this machine''s own store' }
            throw (New-Failure "no answer from ${url}: $($inner.Message); $advice" $kind)
        }
        $response = $err.Response
    }
    try {
        $reader = New-Object IO.StreamReader($response.GetResponseStream(), $Utf8)
        $text = $reader.ReadToEnd()
        $status = [int] $response.StatusCode
        if ($status -ge 300 -and $status -lt 400) {
            throw (New-Failure ("$url answered with a redirect, which is not followed so that the token stays with this server; " +
                    'correct gatecontrol_url') 'redirect' $status)
        }
        if ($status -ge 300) { throw (Get-ServerFailure $What $status $text $response.Headers) }
        $answer = ConvertFrom-JsonText $text
        if ($null -eq $answer -or $answer['ok'] -ne $true) {
            throw (New-Failure ("$What failed: the answer of $url is not the JSON of a GateControl server; " +
                    'check gatecontrol_url and what stands between') 'protocol' $status)
        }
        return $answer
    } finally { $response.Close() }
}

# Server and network errors are tried again after 2 s, 3 s, 4.5 s ... 60 s until $End (Unix time), a rate limit is left to the caller.
function Invoke-Api([string] $What, [string] $Method, [string] $Path, $Body, [double] $End, [bool] $Repeat = $true) {
    $delay = 2.0
    while ($true) {
        try { return Send-Request $What $Method $Path $Body } catch {
            $kind = $_.Exception.Data['kind']
            $pause = $delay * (Get-Random -Minimum 0.8 -Maximum 1.2)
            if (-not $Repeat -or @('server', 'network') -notcontains $kind -or (Get-Now) + $pause -gt $End) { throw }
            Start-Sleep -Milliseconds ([int] (1000 * $pause))
            $delay = [Math]::Min($delay * 1.5, 60.0)
        }
    }
}

# $null while the server's config has the hash of the enrollment, else the config's text, whose hash fits its bytes.
function Get-NewConfig([double] $End) {
    $peer = $Run.enrollment['peer_id']
    $known = [string] (Get-Value $Run.enrollment 'hash' '')
    foreach ($try in 1, 2) {
        $answer = Invoke-Api "checking the config of peer $peer" 'GET' "/config/check?peerId=$peer&hash=$known" $null $End
        if (-not $answer['updated']) { return $null }
        if ($answer['config'] -is [string] -and $answer['config'] -and (Get-Digest $answer['config']) -eq $answer['hash']) { return $answer['config'] }
    }
    throw (New-Failure 'the server''s config does not have the hash it names (twice), so nothing was written; look into the server''s log' 'protocol' 200)
}

# ---------------------------------------------------------------- what runs

function Get-Wg {
    $there = if ($OnWindows) { Join-Path $env:ProgramFiles 'WireGuard\wg.exe' } else { 'wg' }
    return $there
}

function Get-WireGuard { Join-Path $env:ProgramFiles 'WireGuard\wireguard.exe' }

# A program's output; throws with its own words, never a key.
function Invoke-Program([string] $Program, [string[]] $Words) {
    $ErrorActionPreference = 'Continue'  # in here: what a program writes to stderr is no error by itself
    $output = @(& $Program @Words 2>&1 | ForEach-Object { [string] $_ })
    if ($LASTEXITCODE) {
        $said = ($output -join ' ') -replace '[A-Za-z0-9+/]{40,}=*', '(masked)'
        throw "$([IO.Path]::GetFileName($Program)) $($Words[0]) failed: $said"
    }
    return , $output
}

function Get-ConfigPath { Join-Path (Join-Path $Root 'tunnel') "$($Run.interface).conf" }

function Get-TunnelService {
    if (-not $OnWindows) { return $null }
    return Get-Service -Name "WireGuardTunnel`$$($Run.interface)" -ErrorAction SilentlyContinue
}

# What wg knows of the interface, $null where there is none: @{private_key; listen_port; peers by public key}.
function Get-Running {
    if ($OnWindows) {
        $service = Get-TunnelService
        if ($null -eq $service -or $service.Status -ne 'Running' -or -not [IO.File]::Exists((Get-Wg))) { return $null }
    }
    try {
        $lines = Invoke-Program (Get-Wg) @('show', $Run.interface, 'dump')
        $first = $lines[0].Split("`t")
    } catch { return $null }
    $running = @{ private_key = $first[0]; listen_port = [int] $first[2]; peers = @{} }
    foreach ($line in @($lines | Select-Object -Skip 1)) {
        $words = $line.Split("`t")
        if ($words.Length -lt 8) { continue }
        $running.peers[$words[0]] = @{
            preshared_key = $words[1]; endpoint = $words[2]; allowed_ips = @($words[3].Split(',') | Sort-Object); handshake = [long] $words[4]
            rx = [long] $words[5]; tx = [long] $words[6]; keepalive = $words[7]
        }
    }
    return $running
}

function Get-Connection($Running) {
    if ($null -eq $Running) { return @{ status = 'disconnected'; handshake_age = $null; rx_bytes = 0; tx_bytes = 0 } }
    $latest = 0; $received = 0; $sent = 0
    foreach ($peer in $Running.peers.Values) {
        $latest = [Math]::Max($latest, $peer.handshake); $received += $peer.rx; $sent += $peer.tx
    }
    $age = if ($latest) { [long] [Math]::Max(0, [Math]::Floor((Get-Now) - $latest)) } else { $null }
    $status = if (-not $Running.peers.Count) { 'error' } elseif ($null -ne $age -and $age -le $HandshakeFresh) { 'connected' } else { 'reconnecting' }
    return @{ status = $status; handshake_age = $age; rx_bytes = $received; tx_bytes = $sent }
}

# A private key as WireGuard keeps it, with the bits fixed that X25519 ignores.
function Get-ClampedKey([string] $Key) {
    $bytes = [Convert]::FromBase64String($Key)
    $bytes[0] = $bytes[0] -band 248
    $bytes[31] = ($bytes[31] -band 127) -bor 64
    return [Convert]::ToBase64String($bytes)
}

# @{action: none, sync, restart, up; reasons} between what runs and a config. $Applied: the config that was put in place last, or $null: it shows what
# leaves no trace in wg. WireGuard for Windows sets routes when the service starts, so other AllowedIPs are a restart.
function Get-Plan($Config, $Running, $Applied) {
    if ($null -eq $Running) { return @{ action = 'up'; reasons = @('the interface is not there') } }
    $restart = @()
    $sync = @()
    if ($Running.private_key -cne (Get-ClampedKey $Config.interface['PrivateKey'])) { $restart += 'the private key differs' }
    if ($Config.interface.ContainsKey('ListenPort') -and [int] $Config.interface['ListenPort'] -ne $Running.listen_port) {
        $restart += "ListenPort is $($Running.listen_port), should be $($Config.interface['ListenPort'])"
    }
    foreach ($name in 'Address', 'DNS', 'MTU', 'Table' + $Hooks) {
        if ($null -eq $Applied) { continue }
        $before = @(Get-Value $Applied.interface $name @()) -join ','
        if ((@(Get-Value $Config.interface $name @()) -join ',') -ne $before) { $restart += "$name changes" }
    }
    $wanted = @()
    foreach ($peer in $Config.peers) {
        $key = $peer['PublicKey']
        $wanted += $key
        $label = "peer $($key.Substring(0, 8))...:"
        if (-not $Running.peers.ContainsKey($key)) { $restart += "$label is missing"; continue }
        $live = $Running.peers[$key]
        if ((@($peer['AllowedIPs'] | Sort-Object) -join ',') -ne ($live.allowed_ips -join ',')) { $restart += "$label allowed IPs differ" }
        if ((Get-Value $peer 'PresharedKey' '(none)') -cne $live.preshared_key) { $sync += "$label the preshared key differs" }
        $keepalive = Get-Value $peer 'PersistentKeepalive' 'off'
        if ($keepalive -ne $live.keepalive) { $sync += "$label keepalive is $($live.keepalive), should be $keepalive" }
        $before = @(if ($null -ne $Applied) { $Applied.peers | Where-Object { $_['PublicKey'] -ceq $key } | ForEach-Object { Get-Value $_ 'Endpoint' '' } })
        if ($peer.ContainsKey('Endpoint') -and ($live.endpoint -eq '(none)' -or ($before.Count -and $before[0] -ne $peer['Endpoint']))) {
            $sync += "$label endpoint $($live.endpoint), should be $($peer['Endpoint'])"
        }
    }
    foreach ($key in $Running.peers.Keys) { if ($wanted -cnotcontains $key) { $restart += "peer $($key.Substring(0, 8))...: should not be there" } }
    $action = if ($restart.Count) { 'restart' } elseif ($sync.Count) { 'sync' } else { 'none' }
    return @{ action = $action; reasons = @($restart + $sync) }
}

function Get-Applied {
    try { return ConvertFrom-ConfigText ([string] (Read-TextFile (Get-ConfigPath))) $true } catch { return $null }
}

# ---------------------------------------------------------------- services and scheduled tasks (Windows only)

function Wait-Until([scriptblock] $Probe, [double] $Seconds) {
    $end = (Get-Now) + $Seconds
    while (-not (& $Probe)) {
        if ((Get-Now) -gt $end) { return $false }
        Start-Sleep -Milliseconds 200
    }
    return $true
}

function Stop-Tunnel {
    if ($null -eq (Get-TunnelService)) { return }
    [void] (Invoke-Program (Get-WireGuard) @('/uninstalltunnelservice', $Run.interface))
    if (-not (Wait-Until { $null -eq (Get-TunnelService) } 30)) { throw "the service WireGuardTunnel`$$($Run.interface) does not go away" }
}

function Start-Tunnel {
    [void] (Invoke-Program (Get-WireGuard) @('/installtunnelservice', (Get-ConfigPath)))
    $running = Wait-Until { $service = Get-TunnelService; $null -ne $service -and $service.Status -eq 'Running' } 30
    if (-not $running) { throw "the service WireGuardTunnel`$$($Run.interface) does not run within 30 s; look into the log of WireGuard" }
    Set-Service -Name "WireGuardTunnel`$$($Run.interface)" -StartupType Automatic
}

function Get-TaskFolder {
    $scheduler = New-Object -ComObject Schedule.Service
    $scheduler.Connect()
    try { return @{ scheduler = $scheduler; folder = $scheduler.GetFolder($Tasks.TrimEnd('\')) } } catch { return $null }
}

# A registered task of ours, $null where there is none.
function Get-OwnTask([string] $Name) {
    if (-not $OnWindows) { return $null }
    $found = Get-TaskFolder
    if ($null -eq $found) { return $null }
    try { return $found.folder.GetTask($Name) } catch { return $null }
}

# The way back that does not depend on the process that takes the step: it runs once, after the change should have ended.
function Register-Restore([double] $Deadline) {
    $action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument "-NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$Agent`" restore"
    $at = (Get-Date).AddSeconds([Math]::Max(5, $Deadline - (Get-Now) + 30))
    $settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -StartWhenAvailable
    $principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest
    $once = New-ScheduledTaskTrigger -Once -At $at
    [void] (Register-ScheduledTask -TaskPath $Tasks -TaskName 'restore' -Action $action -Trigger $once -Settings $settings -Principal $principal -Force)
}

function Unregister-Restore {
    if ($OnWindows) { Unregister-ScheduledTask -TaskPath $Tasks -TaskName 'restore' -Confirm:$false -ErrorAction SilentlyContinue }
}

function Start-Apply { if ($OnWindows) { Start-ScheduledTask -TaskPath $Tasks -TaskName 'apply' } }

# ---------------------------------------------------------------- a change with a way back

function Set-Note([hashtable] $Values) {
    $Run.enrollment = Read-StoreTable 'enrollment'
    foreach ($key in $Values.Keys) { $Run.enrollment[$key] = $Values[$key] }
    Write-StoreTable 'enrollment' $Run.enrollment
}

# Record the config that was proven.
function Set-Accepted {
    $offered = Read-StoreText 'offered'
    if ($null -eq $offered -or -not $Run.enrollment['peer_id']) { return }
    Set-Note @{ file_hash = Get-Digest ([string] (Read-TextFile (Get-ConfigPath))); settings = Get-Digest ([string] (Read-StoreText 'settings')) }
    $armed = (Read-StoreTable 'pending')['offered']
    if ($null -eq $armed -or $armed -eq (Get-Digest $offered)) {
        Write-StoreText 'issued' $offered
        Set-Note @{ hash = Get-Digest $offered }
        Remove-StoreFile 'offered'
    }
}

# Wait until no change is under way, so that its candidate is not replaced.
function Wait-Idle {
    [void] (Wait-Until { (Get-Now) -gt [double] (Get-Value (Read-StoreTable 'pending') 'deadline' 0) + 30 } 120)
}

# Prepare the change to the candidate and its way back; returns its id. Nothing of the tunnel is touched.
function New-Change([string] $ConfirmBy, [double] $Timeout) {
    [void] (ConvertFrom-ConfigText ([string] (Read-StoreText 'candidate')) $true)
    $change = Read-StoreTable 'pending'
    $verdict = Read-StoreTable 'verdict'
    $now = Get-Now
    if ($change.Count -and $verdict['id'] -ne $change['id']) {
        if ($change['armed'] -le $now -and $now -le $change['deadline'] + 60) {
            throw "another change of $($change['interface']) is under way; try again in a minute"
        }
        # It was interrupted: its way back is still the way to what worked last.
    } else {
        $old = Read-TextFile (Get-ConfigPath)
        Remove-StoreFile 'pending', 'verdict'
        $change = @{ had_config = $null -ne $old }
        if ($null -ne $old) { Write-StoreText 'last_good' $old }
    }
    Remove-StoreFile 'confirm'
    $change['id'] = [Guid]::NewGuid().ToString('N')
    $change['word'] = $null
    $change['interface'] = $Run.interface
    $change['confirm_by'] = $ConfirmBy
    $change['armed'] = $now
    $change['deadline'] = $now + $Timeout
    $change['offered'] = Get-Digest ([string] (Read-StoreText 'offered'))
    Write-StoreTable 'pending' $change
    if ($OnWindows) { Register-Restore $change['deadline'] }
    return $change['id']
}

function Complete-Change($Verdict) {
    if (-not $Verdict.ContainsKey('ended')) {
        $Verdict['ended'] = [long] (Get-Now)
        Write-StoreTable 'verdict' $Verdict
    }
    if ($Verdict['ok']) { Set-Accepted }
    Remove-StoreFile 'confirm', 'last_good', 'candidate'
    Remove-StoreFile 'pending'  # last: while it is there, whatever interrupts is recovered from
    Unregister-Restore
    return $Verdict
}

# Take the step of a plan and put the file in place.
function Set-Tunnel($Plan, $Config, [string] $Text) {
    $path = Get-ConfigPath
    if ($Plan.action -eq 'sync') {
        # What a peer has not is said to be off: syncconf leaves it otherwise. The live port stays.
        $live = Get-Running
        $merged = @{ interface = @{ PrivateKey = $Config.interface['PrivateKey']; ListenPort = [string] $live.listen_port }; peers = @() }
        foreach ($peer in $Config.peers) {
            $merged.peers += , (@{ PresharedKey = [Convert]::ToBase64String((New-Object byte[] 32)); PersistentKeepalive = 'off' })
            foreach ($name in $peer.Keys) { $merged.peers[-1][$name] = $peer[$name] }
        }
        $temporary = Join-Path $Root 'candidate.conf.sync'
        try {
            Write-TextFile $temporary (ConvertTo-ConfigText $merged @('PrivateKey', 'ListenPort'))
            [void] (Invoke-Program (Get-Wg) @('syncconf', $Run.interface, $temporary))
        } finally { Remove-TextFile $temporary }
        Write-TextFile $path $Text
    } elseif ($Plan.action -ne 'none') {
        Stop-Tunnel
        Write-TextFile $path $Text
        Start-Tunnel
    } elseif ((Read-TextFile $path) -cne $Text) { Write-TextFile $path $Text }
}

# $null once a peer has answered since the step and the server answers this host, else the reason.
function Get-Disproof($Before, [double] $Limit) {
    while ($true) {
        $running = Get-Running
        if ($null -eq $running) { return 'the interface went away' }
        $answered = @($running.peers.Keys | Where-Object {
                $known = if ($null -ne $Before -and $Before.peers.ContainsKey($_)) { $Before.peers[$_] } else { @{ rx = 0; handshake = 0 } }
                $running.peers[$_].rx -gt $known.rx -or $running.peers[$_].handshake -gt $known.handshake
            })
        if ($answered.Count) { break }
        if ((Get-Now) -gt $Limit) { return 'no answer from the WireGuard peer' }
        # A datagram to the gateway's usual place in the tunnel draws a handshake.
        try {
            $address = (@((Get-Applied).interface['Address'])[0]).Split('/')[0]
            $client = New-Object Net.Sockets.UdpClient
            try { [void] $client.Send([byte[]] (0), 1, ($address -replace '\.\d+$', '.1'), 9) } finally { $client.Close() }
        } catch { Write-Debug $_ }
        Start-Sleep -Milliseconds 300
    }
    if ($Run.enrollment['reporting'] -ne 'full') { return $null }
    $left = [int] [Math]::Max(2, (Read-StoreTable 'pending')['deadline'] - (Get-Now) - 1)
    $Run.settings['max_wait'] = $left
    $Run.settings['timeout'] = [Math]::Min($left, (Get-Value $Run.settings 'timeout' 15))
    $shown = Invoke-Beat $false $false
    if ($null -ne $shown['error'] -and $Unreached -contains $shown['error']['kind']) { return $shown['error']['text'] }
    return $null
}

# The work of the task "apply": take the armed step, prove it, wait for its confirmation, else go back.
function Invoke-Apply {
    $change = Read-StoreTable 'pending'
    if (-not $change.Count) { return $null }
    if ((Get-Now) -gt $change['deadline'] -or $change.ContainsKey('ran')) { return Restore-Change }
    $verdict = @{ id = $change['id']; ok = $false; reason = $null; action = $null; reasons = @(); word = $null }
    $reason = $null
    try {
        Start-Sleep -Seconds 1  # the answer to whoever armed this should have left the host
        $before = Get-Running
        $change['ran'] = $null -ne $before
        Write-StoreTable 'pending' $change
        $text = [string] (Read-StoreText 'candidate')
        $config = ConvertFrom-ConfigText $text $true
        $plan = Get-Plan $config $before (Get-Applied)
        $verdict['action'] = $plan.action
        $verdict['reasons'] = $plan.reasons
        Set-Tunnel $plan $config $text
        $timeout = $change['deadline'] - $change['armed']
        $reason = Get-Disproof $(if ($plan.action -eq 'sync' -or $plan.action -eq 'none') { $before } else { $null }) ($change['armed'] + $timeout * 0.6)
        if (-not $reason -and $change['confirm_by'] -eq 'controller') {
            $change['word'] = [Guid]::NewGuid().ToString('N')
            Write-StoreTable 'pending' $change
            while (-not $reason -and ([string] (Read-StoreText 'confirm')).Trim() -ne $change['word']) {
                if ((Get-Now) -gt $change['deadline'] - [Math]::Min(10, $timeout / 4)) {
                    $reason = 'the controller did not come back over a new connection within {0:f0} s' -f $timeout
                }
                Start-Sleep -Milliseconds 200
            }
        }
    } catch { $reason = $_.Exception.Message }
    if ($reason) { $reason = Undo-Change $change $reason }
    $verdict['ok'] = -not $reason
    $verdict['reason'] = $reason
    $verdict['word'] = $change['word']
    return Complete-Change $verdict
}

# Put back what was there before; returns the reason, with what failed on the way.
function Undo-Change($Change, [string] $Reason) {
    if (-not $Change.ContainsKey('ran')) { return $Reason }  # nothing was touched yet
    try {
        $text = if ($Change['had_config']) { Read-StoreText 'last_good' } else { $null }
        if ($Change['had_config'] -and $null -eq $text) { return "$Reason; there was no way back: the last good config is gone" }
        Stop-Tunnel
        if ($null -eq $text) { Remove-TextFile (Get-ConfigPath) } else { Write-TextFile (Get-ConfigPath) $text }
        if ($null -ne $text -and $Change['ran']) { Start-Tunnel }
    } catch { return "$Reason; the way back failed too: $($_.Exception.Message)" }
    return $Reason
}

# End a change that was interrupted: its process was killed, or the host was rebooted in the middle.
function Restore-Change {
    $change = Read-StoreTable 'pending'
    if (-not $change.Count) { Unregister-Restore; return $null }
    $verdict = Read-StoreTable 'verdict'
    if ($verdict['id'] -eq $change['id']) { return Complete-Change $verdict }
    $reason = Undo-Change $change 'the change was interrupted'
    return Complete-Change @{ id = $change['id']; word = $change['word']; ok = $false; reason = $reason; action = $null; reasons = @() }
}

# What a play asks of the tunnel: @{changed; action; reasons; armed (the change's id)}.
function Invoke-ChangeRequest($Wanted) {
    $Run.interface = Get-Value $Wanted 'interface' $Run.interface
    if ($Wanted['state'] -eq 'absent') {
        $there = $null -ne (Get-TunnelService) -or [IO.File]::Exists((Get-ConfigPath))
        if ($there -and -not $Check) {
            Stop-Tunnel
            Remove-TextFile (Get-ConfigPath)
        }
        return @{ changed = $there; action = $(if ($there) { 'down' } else { 'none' }); reasons = @() }
    }
    $live = Read-TextFile (Get-ConfigPath)
    $candidate = if ($Check) { $null } else { Wait-Idle; Read-StoreText 'candidate' }
    $text = if ($null -ne $candidate) { $candidate } else { $live }
    if ($null -eq $text) {
        if ($Check) { return @{ changed = $true; action = 'up'; reasons = @('there is no config yet') } }
        throw "there is no config of $($Run.interface); stage it first"
    }
    $config = ConvertFrom-ConfigText $text $true
    $plan = Get-Plan $config (Get-Running) (Get-Applied)
    $service = Get-TunnelService
    $automatic = $null -ne $service -and [string] $service.StartType -eq 'Automatic'
    $result = @{ changed = $plan.action -ne 'none' -or $text -cne $live -or -not $automatic; action = $plan.action; reasons = $plan.reasons }
    if ($Check) { return $result }
    if ($plan.action -eq 'none') {
        Set-Tunnel $plan $config $text
        if ($null -ne $service) { Set-Service -Name $service.Name -StartupType Automatic }
        if ($null -ne $candidate) { Set-Accepted; Remove-StoreFile 'candidate' }
        return $result
    }
    if ($null -eq $candidate) {
        Write-StoreText 'candidate' $text
        Remove-StoreFile 'offered'  # one that was rolled back may lie there, and is not what runs next
    }
    $result['armed'] = New-Change 'controller' ([double] (Get-Value $Wanted 'timeout' 40))
    Start-Apply
    return $result
}

# The controller came back: as _tunnel.confirm.
function Get-Confirmation([string] $Given) {
    $end = (Get-Now) + 60
    $said = $false
    while ((Get-Now) -lt $end) {
        $change = Read-StoreTable 'pending'
        $verdict = Read-StoreTable 'verdict'
        if ($change['word'] -and $change['id'] -eq $Given) { return @{ confirm = $change['word'] } }
        if ($change['word'] -and $change['word'] -eq $Given) {
            if (-not $said) { Write-StoreText 'confirm' $Given }
            $said = $true
        } elseif (-not $change.Count -and $verdict.Count -and ($verdict['id'] -eq $Given -or $verdict['word'] -eq $Given)) { return $verdict }
        Start-Sleep -Milliseconds 200
    }
    return $null
}

# ---------------------------------------------------------------- a beat

function Assert-Identity {
    if (-not $Run.enrollment['peer_id']) { throw (New-Failure 'this host is not enrolled; run the play with a secret for it' 'not_enrolled') }
    if ($Run.enrollment['fingerprint'] -ne (Get-MachineFingerprint)) {
        throw (New-Failure ("this machine is a clone of the one that enrolled as $($Run.enrollment['peer_name']): " +
                'it stays silent until it is enrolled itself; run the play with a secret of its own and gatecontrol_state=absent first') 'clone')
    }
}

# Report to the server and ask for a new config when that is due; returns what show shows.
function Invoke-Beat([bool] $AskConfig, [bool] $AtOnce) {
    Assert-Identity
    $state = Get-Memory
    $now = Get-Now
    $until = Get-Value $state 'not_before' 0
    if ($Run.enrollment['reporting'] -ne 'full' -or ($now -lt $until -and $until -le $now + $SilentMost)) { return Get-Shown $state $null }
    $link = Get-Connection (Get-Running)
    $connected = $link.status -eq 'connected'
    $state['connected_since'] = if ($connected) { [Math]::Min((Get-Value $state 'connected_since' $now), $now) } else { $null }
    $state['not_before'] = 0
    $state['last_try'] = $now
    $state['error'] = $null
    # All tries of a beat end before the next beat begins.
    $end = $now + [Math]::Min((Get-Value $Run.settings 'max_wait' 60), [Math]::Max(5, (Get-Value $Run.settings 'heartbeat_interval' 60) - 15))
    $peer = $Run.enrollment['peer_id']
    try {
        $answer = Invoke-Api "sending the heartbeat of peer $peer" 'POST' '/heartbeat' @{
            peerId = $peer; connected = $connected; rxBytes = $link.rx_bytes; txBytes = $link.tx_bytes; hostname = Get-HostName
            uptime = $(if ($connected) { [long] ($now - $state['connected_since']) } else { 0 })
        } $end
        $state['peer_enabled'] = if ($answer['peerEnabled'] -is [bool]) { $answer['peerEnabled'] } else { $null }
        $state['last_beat'] = $now
        $changing = [bool] (Read-StoreTable 'pending').Count
        if (-not $state['reported']) { $state['reported'] = $link.status }
        elseif ($state['reported'] -ne $link.status -and -not $changing) {
            [void] (Invoke-Api "reporting the status of peer $peer" 'POST' '/status' @{
                    peerId = $peer; status = $link.status; timestamp = [DateTime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ss.fffZ')
                } $end $false)
            $state['reported'] = $link.status
        }
        if ($AskConfig -and -not $changing) {
            $since = $now - (Get-Value $state 'last_check' 0)
            if ($AtOnce -or $since -lt 0 -or $since -ge (Get-Value $Run.settings 'sync_interval' 300) - 5) { Update-Config $state $end $AtOnce }
            if ($state['refused'] -is [hashtable] -and $state['refused']['text']) { $state['error'] = @{ kind = 'config'; text = $state['refused']['text'] } }
        }
    } catch {
        $kind = $_.Exception.Data['kind']
        if (-not $kind) { throw }
        $state['error'] = @{ kind = $kind; text = $_.Exception.Message }
        if ($kind -eq 'rate_limited') { $state['not_before'] = $now + [Math]::Min($_.Exception.Data['retry_after'], $SilentMost) }
    }
    $state['requests'] = $Run.requests
    Write-StoreTable 'state' $state
    return Get-Shown $state $link
}

# Ask for a new config and start its application, which is a task of its own.
function Update-Config($State, [double] $End, [bool] $AtOnce) {
    $offered = Get-NewConfig $End
    $now = Get-Now
    $State['last_check'] = $now
    if ($null -eq $offered) { $State['refused'] = $null; return }
    $hash = Get-Digest $offered
    $refused = Get-Value $State 'refused' @{}
    $known = $refused['hash'] -eq $hash
    if ($known -and -not $AtOnce -and $refused['again'] -gt $now -and $refused['again'] - $now -le $RefusedWait[1]) { return }
    $wait = if ($known) { [Math]::Min($refused['wait'] * 2, $RefusedWait[1]) } else { $RefusedWait[0] }
    # Noted before it is tried: a config that is rolled back comes up here again.
    $State['refused'] = @{ hash = $hash; wait = $wait; again = $now + $wait; text = $null }
    try { $text = Get-RenderedConfig $offered } catch {
        $State['refused']['text'] = "the server's config was refused and the tunnel left as it is: $($_.Exception.Message)"
        return
    }
    try {
        Wait-Idle
        Write-StoreText 'offered' $offered
        Write-StoreText 'candidate' $text
        [void] (New-Change 'server' (Get-Value $Run.settings 'confirm_timeout' 40))
        Start-Apply
    } catch { $State['refused']['text'] = "the server's config was not applied and the tunnel left as it is: $($_.Exception.Message)" }
}

# ---------------------------------------------------------------- what it is like

function Get-Shown($State, $Link) {
    if ($null -eq $State) { $State = Get-Memory }
    if ($null -eq $Link) { $Link = Get-Connection (Get-Running) }
    $shown = @{ enrolled = [bool] $Run.enrollment['peer_id']; version = $Version }
    foreach ($key in 'peer_id', 'peer_name', 'url', 'interface', 'reporting', 'hash') { $shown[$key] = $Run.enrollment[$key] }
    foreach ($key in $Link.Keys) { $shown[$key] = $Link[$key] }
    foreach ($key in 'peer_enabled', 'last_beat', 'last_try', 'last_check', 'not_before', 'error', 'refused', 'requests') { $shown[$key] = $State[$key] }
    $verdict = Read-StoreTable 'verdict'
    $shown['verdict'] = if ($verdict.Count) { $verdict } else { $null }
    $shown['pending'] = [bool] (Read-StoreTable 'pending').Count
    return $shown
}

# Who may read the agent's folder beside SYSTEM and the administrators: their SIDs.
function Get-OtherReader {
    if (-not $OnWindows) { return }
    $trusted = 'S-1-5-18', 'S-1-5-32-544'
    $acl = Get-Acl -LiteralPath $Root
    $acl.GetAccessRules($true, $true, [Security.Principal.SecurityIdentifier]) | ForEach-Object { $_.IdentityReference.Value } |
        Where-Object { $trusted -notcontains $_ } | Select-Object -Unique
    $owner = $acl.GetOwner([Security.Principal.SecurityIdentifier]).Value
    if ($trusted -notcontains $owner) { $owner }
}

# Compare the host with what a play wants; one request to the server, nothing is changed. Shapes as in the agent on Linux.
function Get-Verification($Wanted) {
    $drift = New-Object Collections.ArrayList
    $state = Get-Memory
    $running = Get-Running
    $answer = Get-Shown $state (Get-Connection $running)
    $answer['now'] = Get-Now
    $answer['tunnel'] = $null
    $answer['server'] = @{ asked = $false }
    $answer['peer_fields'] = $null
    $wireguard = -not $OnWindows -or [IO.File]::Exists((Get-WireGuard))
    $answer['host'] = @{
        system = 'windows'; distribution = 'windows'; like = @(); version = [Environment]::OSVersion.Version.ToString(); service_manager = 'windows'
        fingerprint = Get-MachineFingerprint; hostname = Get-HostName; resolvectl = $null; needs = @($(if (-not $wireguard) { 'wireguard' }))
    }
    if ($Wanted['state'] -eq 'absent') {
        if ([IO.Directory]::Exists($Root)) { [void] $drift.Add("$Root is there") }
        if ($null -ne (Get-TunnelService)) { [void] $drift.Add("the interface $($Run.interface) is there") }
        if ($OnWindows -and $null -ne (Get-TaskFolder)) { [void] $drift.Add("the scheduled tasks in $Tasks are there") }
    } else {
        Compare-Enrollment $Wanted $drift
        Compare-File $Wanted $drift
        $answer['tunnel'] = Compare-Tunnel $running $drift
        if ($OnWindows) { Compare-Service $drift $state }
        if (-not $wireguard) { [void] $drift.Add('WireGuard is not installed') }
        if ((Get-Value $Wanted 'check' $true) -and -not $drift.Count) { $answer['server'] = Get-ServerAnswer $state $drift }
        $record = $Run.enrollment
        $own = $record['fingerprint'] -eq $answer['host']['fingerprint'] -and (-not $Wanted['url'] -or $Wanted['url'] -eq $record['url'])
        if ($Wanted['fields'] -and $own -and $record['fields'] -ne 'ephemeral') {
            $answer['peer_fields'] = $Wanted['fields'] -eq $record['fields']
            if (-not $answer['peer_fields']) { [void] $drift.Add('the peer has not been given what the play wants of it on the server') }
        }
    }
    if ($answer['pending']) { [void] $drift.Add('a change of the tunnel is under way') }
    $answer['drift'] = @($drift)
    $answer['in_sync'] = -not $drift.Count
    return $answer
}

function Compare-Enrollment($Wanted, $Drift) {
    try { Assert-Identity } catch { [void] $Drift.Add($_.Exception.Message); return }
    $record = $Run.enrollment
    if ($Wanted['url'] -and $Wanted['url'] -ne $record['url']) { [void] $Drift.Add("the enrollment is with $($record['url'])") }
    if ($Wanted['interface'] -and $Wanted['interface'] -ne $record['interface']) {
        [void] $Drift.Add("the enrollment uses the interface $($record['interface'])")
    }
    if ($Wanted['token'] -and $Wanted['token'] -ne $record['token_digest']) { [void] $Drift.Add('the token given is not the one on the host') }
    if ($record['reporting'] -eq 'full' -and (Get-Digest $Run.token) -ne $record['token_digest']) { [void] $Drift.Add('the token file was changed') }
    $applied = $record['settings']
    if ($applied -and $applied -ne (Get-Digest ([string] (Read-StoreText 'settings')))) {
        [void] $Drift.Add('the settings have not reached the tunnel: an earlier change failed or was undone')
    }
}

function Compare-File($Wanted, $Drift) {
    $settings = Get-Digest ([string] (Read-StoreText 'settings'))
    if ($Wanted['settings'] -and $Wanted['settings'] -ne $settings) { [void] $Drift.Add('the agent''s settings differ') }
    if ([IO.Directory]::Exists($Root) -and @(Get-OtherReader).Count) { [void] $Drift.Add("$Root can be read by others than SYSTEM and the administrators") }
    $files = Get-Value $Wanted 'files' @{}
    foreach ($path in $files.Keys) {
        $text = Read-TextFile $path
        if ($null -eq $text) { [void] $Drift.Add("$path is missing") } elseif ((Get-Digest $text) -ne $files[$path]) { [void] $Drift.Add("$path differs") }
    }
}

function Compare-Tunnel($Running, $Drift) {
    $path = Get-ConfigPath
    $text = Read-TextFile $path
    if ($null -eq $text) { [void] $Drift.Add("$path is missing"); return $null }
    if ((Get-Digest $text) -ne $Run.enrollment['file_hash']) { [void] $Drift.Add("$path was changed"); return $null }
    try { $config = ConvertFrom-ConfigText $text $true } catch { [void] $Drift.Add("${path}: $($_.Exception.Message)"); return $null }
    $plan = Get-Plan $config $Running $config
    foreach ($reason in $plan.reasons) { [void] $Drift.Add($reason) }
    return $plan
}

function Compare-Service($Drift, $State) {
    $service = Get-TunnelService
    if ($null -eq $service) { [void] $Drift.Add("the service WireGuardTunnel`$$($Run.interface) is missing") }
    else {
        if ($service.Status -ne 'Running') { [void] $Drift.Add("the service $($service.Name) is $($service.Status)") }
        if ([string] $service.StartType -ne 'Automatic') { [void] $Drift.Add("the service $($service.Name) does not start at boot") }
    }
    $interval = [Math]::Max(60, (Get-Value $Run.settings 'heartbeat_interval' 60))
    $verbs = if ($Run.enrollment['reporting'] -eq 'full') { 'beat', 'apply' } else { , 'apply' }
    foreach ($verb in $verbs) {
        $task = Get-OwnTask $verb
        $label = "the scheduled task $Tasks$verb"
        if ($null -eq $task) { [void] $Drift.Add("$label is missing"); continue }
        if (-not $task.Enabled) { [void] $Drift.Add("$label is disabled") }
        $definition = $task.Definition
        if (-not ([string] $definition.Actions.Item(1).Arguments).EndsWith("`"$Agent`" $verb")) { [void] $Drift.Add("$label runs something else") }
        if ($verb -eq 'beat') {
            $repeated = [string] $definition.Triggers.Item(1).Repetition.Interval
            $seconds = if ($repeated) { [Xml.XmlConvert]::ToTimeSpan($repeated).TotalSeconds } else { 0 }
            if ($seconds -ne $interval) { [void] $Drift.Add("$label does not run every $interval s") }
        }
    }
    $silent = (Get-Now) - (Get-Value $State 'last_try' 0)
    $waits = (Get-Value $State 'not_before' 0) -ge (Get-Now)
    if ($Run.enrollment['reporting'] -eq 'full' -and -not $Drift.Count -and $silent -gt 3 * $interval + 30 -and -not $waits) {
        [void] $Drift.Add('the agent has not beaten for {0:f0} s' -f $silent)
    }
}

# The one request of a steady run: has the server another config?
function Get-ServerAnswer($State, $Drift) {
    if ($Run.enrollment['reporting'] -ne 'full') { return @{ asked = $false; last_check = $State['last_check'] } }
    if ((Get-Value $State 'not_before' 0) -gt (Get-Now)) { return @{ asked = $false; not_before = $State['not_before'] } }
    try { $updated = $null -ne (Get-NewConfig 0) } catch {
        if (-not $_.Exception.Data['kind']) { throw }
        [void] $Drift.Add("the server: $($_.Exception.Message)")
        return @{ asked = $true; error = @{ kind = $_.Exception.Data['kind']; status = $_.Exception.Data['status']; text = $_.Exception.Message } }
    }
    if ($updated) { [void] $Drift.Add('the server has a new config') }
    return @{ asked = $true; updated = $updated }
}

# ---------------------------------------------------------------- a play's work on this host

# The folder with the one ACL that matters. One that another account made may hold what that account can still change, so it is refused.
function Protect-Root {
    $there = [IO.Directory]::Exists($Root)
    if ($there -and -not @(Get-OtherReader).Count) { return @{ changed = $false } }
    if ($there -and $OnWindows) {
        $owner = (Get-Acl -LiteralPath $Root).GetOwner([Security.Principal.SecurityIdentifier]).Value
        if ('S-1-5-18', 'S-1-5-32-544' -notcontains $owner) {
            throw "$Root belongs to $owner, neither SYSTEM nor the administrators; look into it and remove it"
        }
    }
    if (-not $Check) {
        [void] [IO.Directory]::CreateDirectory($Root)
        if ($OnWindows) {
            $acl = New-Object Security.AccessControl.DirectorySecurity
            $acl.SetSecurityDescriptorSddlForm('O:BAG:SYD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
            Set-Acl -LiteralPath $Root -AclObject $acl
        }
    }
    return @{ changed = $true }
}

function Get-FileTexts([string] $TokenFile) {
    $files = @{ config = Read-TextFile (Get-ConfigPath) }
    foreach ($name in 'enrollment', 'token', 'intent', 'issued', 'offered', 'settings') { $files[$name] = Read-StoreText $name }
    $given = if ($TokenFile) { Read-TextFile $TokenFile } else { $null }
    if ($TokenFile -and $null -eq $given) { throw "gatecontrol_token_file $TokenFile does not exist; correct the path" }
    return @{ changed = $false; files = $files; token = $given }
}

function Set-FileTexts {
    $password = (New-Object Net.NetworkCredential('', $Texts)).Password
    $given = ConvertFrom-JsonText $password
    if ($null -eq $given) { throw 'the texts are no JSON object' }
    $names = @($given.Keys | Where-Object { (Read-StoreText $_) -cne $given[$_] })
    if (-not $Check) {
        # The enrollment last: with it the others have to be there.
        foreach ($name in @($names | Where-Object { $_ -ne 'enrollment' }) + @($names | Where-Object { $_ -eq 'enrollment' })) {
            if ($null -eq $given[$name]) { Remove-StoreFile $name } else { Write-StoreText $name $given[$name] }
        }
    }
    return @{ changed = [bool] $names.Count; names = $names }
}

function Remove-Everything {
    $found = if ($OnWindows) { Get-TaskFolder } else { $null }
    $there = [IO.Directory]::Exists($Root) -or $null -ne $found
    if (-not $Check -and $there) {
        if ($null -ne $found) {
            foreach ($task in @($found.folder.GetTasks(1))) { $task.Stop(0); $found.folder.DeleteTask($task.Name, 0) }
            $found.scheduler.GetFolder('\').DeleteFolder($Tasks.Trim('\'), 0)
        }
        if ([IO.Directory]::Exists($Root)) { [IO.Directory]::Delete($Root, $true) }
    }
    return @{ changed = $there }
}

# ---------------------------------------------------------------- the command line

# To a play through win_powershell as its result, else as the one line of JSON behind the marker.
function Write-Answer($Table) {
    if (Test-Path -LiteralPath 'variable:Ansible') {
        $Ansible.Result = $Table
        $Ansible.Changed = $null -ne $Table -and [bool] $Table['changed']
        return
    }
    Write-Output ($Marker + (ConvertTo-JsonText $Table))
}

function Write-Shown($Shown) {
    if ($Json) { return Write-Output (ConvertTo-JsonText $Shown) }
    if (-not $Shown['enrolled']) { return Write-Output 'not enrolled' }
    Write-Output ('peer    {0} (id {1}) on {2}' -f $Shown['peer_name'], $Shown['peer_id'], $Shown['url'])
    $age = if ($null -eq $Shown['handshake_age']) { 'no handshake yet' } else { "handshake $($Shown['handshake_age']) s ago" }
    Write-Output ('tunnel  {0}, {1}; {2}' -f $Shown['interface'], $Shown['status'], $age)
    Write-Output ('        received {0} bytes, sent {1} bytes' -f $Shown['rx_bytes'], $Shown['tx_bytes'])
    $beat = if ($Shown['reporting'] -ne 'full') { 'none: this host has no token of its own' }
    elseif ($Shown['last_beat']) { 'answered {0:f0} s ago' -f ((Get-Now) - $Shown['last_beat']) } else { 'never answered' }
    Write-Output "beat    $beat"
    if ($Shown['peer_enabled'] -eq $false) { Write-Output 'server  the administrator has disabled this peer' }
    if ($null -ne $Shown['error']) { Write-Output "error   $($Shown['error']['text'])" }
    if ($null -ne $Shown['verdict'] -and -not $Shown['verdict']['ok']) {
        Write-Output "config  the last change was rolled back: $($Shown['verdict']['reason'])"
    }
}

function ConvertFrom-Word { ConvertFrom-JsonText ($Utf8.GetString([Convert]::FromBase64String($Word))) }

# Windows PowerShell may still offer less than TLS 1.2, PowerShell 7 does not.
if ($PSVersionTable.PSVersion.Major -lt 6) { [Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType] 3072 }
$Run.settings = Read-StoreTable 'settings'
$Run.enrollment = Read-StoreTable 'enrollment'
$Run.interface = [string] (Get-Value $Run.enrollment 'interface' (Get-Value $Run.settings 'interface' 'wg0'))
$Run.token = ([string] (Read-StoreText 'token')).Trim()
$status = 0
try {
    switch ($Command) {
        'show' { Write-Shown (Get-Shown $null $null) }
        'verify' { Write-Answer (Get-Verification (ConvertFrom-Word)) }
        'change' { Write-Answer (Invoke-ChangeRequest (ConvertFrom-Word)) }
        'confirm' { Write-Answer (Get-Confirmation $Word) }
        'protect' { Write-Answer (Protect-Root) }
        'read' { Write-Answer (Get-FileTexts $Word) }
        'store' { Write-Answer (Set-FileTexts) }
        'remove' { Write-Answer (Remove-Everything) }
        'checked' {
            $memory = Get-Memory
            $memory['last_check'] = Get-Now
            Write-StoreTable 'state' $memory
        }
        'restore' { [void] (Restore-Change) }
        'apply' {
            $verdict = Invoke-Apply
            if ($null -ne $verdict -and -not $verdict['ok']) { $status = 1 }
        }
        default {
            $shown = Invoke-Beat $true ($Command -eq 'sync')
            Write-Shown $shown
            if ($null -ne $shown['error']) { $status = 1 }
        }
    }
} catch {
    if (Test-Path -LiteralPath 'variable:Ansible') { throw }
    if ('verify', 'change', 'confirm' -contains $Command) { Write-Answer @{ failed = $true; version = $Version; msg = $_.Exception.Message } }
    else { Write-Output $_.Exception.Message }
    $status = 1
}
if ($PSCommandPath) { exit $status }
