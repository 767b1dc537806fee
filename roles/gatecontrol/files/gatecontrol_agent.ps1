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
  schedule WANTED   have the scheduled tasks, or correct them (base64 of JSON: verbs, interval, offset)
  read [FILE]       the texts of the host's files, and of a token's file, for a play
  store -Texts ...  write and remove such files (JSON: name to text or null; -Texts2 to -Texts8 go on where one is full)
  remove            take everything away that the collection keeps on this host

With -WhatIf, store, protect, schedule, change and remove only tell what they would do.

For Windows PowerShell 5.1 and PowerShell 7. The files and their JSON are those of the agent on Linux.
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [Parameter(Position = 0)]
    [ValidateSet('show', 'beat', 'sync', 'verify', 'change', 'confirm', 'checked', 'apply', 'restore', 'protect', 'schedule', 'read', 'store', 'remove')]
    [string] $Command = 'show',
    [Parameter(Position = 1)] [string] $Word = '',
    [string] $Root = '',
    [switch] $Json,
    # A SecureString holds 65,536 characters.
    [Security.SecureString] $Texts, [Security.SecureString] $Texts2, [Security.SecureString] $Texts3, [Security.SecureString] $Texts4,
    [Security.SecureString] $Texts5, [Security.SecureString] $Texts6, [Security.SecureString] $Texts7, [Security.SecureString] $Texts8
)

# Nothing below runs in constrained language, and what PowerShell says then does not tell why.
if ([string] $ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
    $said = 'PowerShell runs in constrained language mode on this host, in which the agent cannot work: allow its script in AppLocker or App Control'
    Write-Output ('gatecontrol-agent:{"failed": true, "msg": "' + $said + '"}')
    throw $said
}

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
$ClockStep = 60         # seconds by which a handshake may lie in the future: the clock was set
$SilentMost = 86400    # seconds for which a rate limit is believed
$RefusedWait = 300, 21600  # seconds before a config that failed is tried again: doubled from the first to the second
$Unreached = 'network', 'proxy', 'tls', 'redirect', 'protocol', 'server', 'options'  # errors that prove no way to the server
$Largest = 8388608     # bytes of an answer
$Patience = 20         # seconds in which a file that another program holds is tried again
$Abandoned = 60        # seconds after which a temporary file has no writer any more
$Utf8 = New-Object Text.UTF8Encoding($false)
$Invariant = [Globalization.CultureInfo]::InvariantCulture
$FileNames = @{
    enrollment = 'enrollment.json'; token = 'token'; settings = 'settings.json'; intent = 'intent.json'; issued = 'issued.conf'; offered = 'offered.conf'
    candidate = 'candidate.conf'; last_good = 'last_good.conf'; pending = 'pending.json'; confirm = 'confirm'; verdict = 'verdict.json'
    earlier = 'earlier.json'; state = 'state.json'
}

# What this run knows. One object that functions change in place: as a play's script, this has no script scope of its own.
$Run = @{ requests = 0; settings = @{}; enrollment = @{}; interface = 'wg0'; token = ''; locks = @{} }

# ---------------------------------------------------------------- small functions

# The time of day in Unix seconds, for records; and seconds that no clock being set disturbs, the same for all processes, for deadlines.
function Get-Now { [Math]::Round(([DateTime]::UtcNow - (New-Object DateTime(1970, 1, 1, 0, 0, 0, [DateTimeKind]::Utc))).TotalSeconds, 3) }

function Get-Clock { [double] [Diagnostics.Stopwatch]::GetTimestamp() / [Diagnostics.Stopwatch]::Frequency }

# By ordinal, unlike @{}, whose keys compare without case and by culture.
function New-Table { return New-Object Collections.Hashtable([StringComparer]::Ordinal) }

function Get-Digest([string] $Text) {
    $sha = [Security.Cryptography.SHA256]::Create()
    try { return -join ($sha.ComputeHash($Utf8.GetBytes($Text)) | ForEach-Object { $_.ToString('x2', $Invariant) }) } finally { $sha.Dispose() }
}

function Test-Match([string] $Text, [string] $Pattern) { return [regex]::IsMatch($Text, '\A(?:' + $Pattern + ')\z') }

# The same texts. -eq and -ceq, -contains and switch compare by culture: a soft hyphen or a control character is nothing to them.
function Test-Same($One, $Other) { return ($null -eq $One -and $null -eq $Other) -or ($One -is [string] -and $Other -is [string] -and $One.Equals($Other)) }

function Test-Among([string] $Text, $Texts) { return [Array]::IndexOf([string[]] @($Texts), $Text) -ge 0 }

# What Python holds for true.
function Test-True($Value) {
    if ($null -eq $Value) { return $false }
    if ($Value -is [string]) { return $Value.Length -gt 0 }
    if ($Value -is [Collections.ICollection]) { return $Value.Count -gt 0 }
    return [bool] $Value
}

function Wait-Until([scriptblock] $Probe, [double] $Seconds) {
    $end = (Get-Clock) + $Seconds
    while (-not (& $Probe)) {
        if ((Get-Clock) -gt $end) { return $false }
        Start-Sleep -Milliseconds 200
    }
    return $true
}

# A failure with a kind that a program can decide on.
function New-Failure([string] $Message, [string] $Kind, $Status = $null, $RetryAfter = $null) {
    $failure = New-Object InvalidOperationException($Message)
    $failure.Data['kind'] = $Kind
    $failure.Data['status'] = $Status
    $failure.Data['retry_after'] = $RetryAfter
    return $failure
}

# A config that is refused, as ConfigError in Python: its kind (syntax or policy) and the line's number, if there is one.
function New-Refusal([string] $Message, [string] $Kind = 'syntax', [int] $Line = 0) {
    $failure = New-Object FormatException($(if ($Line) { "line ${Line}: $Message" } else { $Message }))
    $failure.Data['refused'] = $Kind
    $failure.Data['line'] = $Line
    return $failure
}

# ---------------------------------------------------------------- JSON: strictly as RFC 8259 has it, which ConvertFrom-Json does not

$JsonToken = New-Object regex('\G[ \t\r\n]*(?:(?<text>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*")' +
    '|(?<number>-?(?:0|[1-9][0-9]{0,299})(?<real>(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,4})?)(?![0-9.eE]))|(?<word>true|false|null)|(?<sign>[\[\]{},:]))')
$JsonDeepest = 100

$JsonControls = @{ b = "`b"; f = "`f"; n = "`n"; r = "`r"; t = "`t" }

function ConvertFrom-JsonString([string] $Token) {
    $inner = $Token.Substring(1, $Token.Length - 2)
    if ($inner.IndexOf([char] 92) -lt 0) { return $inner }
    return [regex]::Replace($inner, '\\(?:u([0-9A-Fa-f]{4})|(.))', {
            param($found)
            if ($found.Groups[1].Success) { return [string] [char] [Convert]::ToInt32($found.Groups[1].Value, 16) }
            $escaped = $found.Groups[2].Value
            if ($JsonControls.ContainsKey($escaped)) { return $JsonControls[$escaped] }
            return $escaped
        })
}

function ConvertFrom-JsonNumber($Found) {
    $digits = $Found.Groups['number'].Value
    if ($Found.Groups['real'].Length) {
        $number = [double]::Parse($digits, [Globalization.NumberStyles]::Float, $Invariant)
        if ([double]::IsInfinity($number)) { throw (New-Object FormatException('a number that is too large')) }
        return $number
    }
    $small = [long] 0
    if ([long]::TryParse($digits, [Globalization.NumberStyles]::AllowLeadingSign, $Invariant, [ref] $small)) { return $small }
    return [Numerics.BigInteger]::Parse($digits, $Invariant)
}

# Objects become tables with ordinal keys, lists ArrayLists. Throws FormatException.
function ConvertFrom-Json8259([string] $Text) {
    $wrong = New-Object FormatException('this is no JSON')
    $root = New-Object Collections.ArrayList
    $open = New-Object Collections.Stack  # of the containers that are open
    $container = $root; $key = $null; $at = 0
    $state = 'value'  # what has to come: value, first (value or ]), key, begin (key or }), colon, next (comma or end)
    while ($true) {
        $found = $JsonToken.Match($Text, $at)
        if (-not $found.Success) { break }
        $at = $found.Index + $found.Length
        $sign = $found.Groups['sign'].Value
        if ($state -ceq 'done') { throw $wrong }
        if ($state -ceq 'colon') { if ($sign -cne ':') { throw $wrong }; $state = 'value'; continue }
        if ($state -ceq 'key' -or $state -ceq 'begin') {
            if ($found.Groups['text'].Success) { $key = ConvertFrom-JsonString $found.Groups['text'].Value; $state = 'colon'; continue }
            if ($state -cne 'begin' -or $sign -cne '}') { throw $wrong }
        }
        if ($state -ceq 'next' -and $sign -ceq ',') { $state = if ($container -is [hashtable]) { 'key' } else { 'value' }; continue }
        if ($sign -ceq '}' -or $sign -ceq ']') {
            $ends = $state -ceq 'next' -or $state -ceq 'begin' -or $state -ceq 'first'
            if (-not $ends -or $open.Count -eq 0 -or ($container -is [hashtable]) -ne ($sign -ceq '}')) { throw $wrong }
            $container = $open.Pop()
            $state = if ($open.Count) { 'next' } else { 'done' }
            continue
        }
        if (($state -cne 'value' -and $state -cne 'first') -or $sign -ceq ',' -or $sign -ceq ':') { throw $wrong }
        $value = $null
        if ($found.Groups['text'].Success) { $value = ConvertFrom-JsonString $found.Groups['text'].Value }
        elseif ($found.Groups['number'].Success) { $value = ConvertFrom-JsonNumber $found }
        elseif ($found.Groups['word'].Success) { $value = @{ 'true' = $true; 'false' = $false; 'null' = $null }[$found.Groups['word'].Value] }
        elseif ($sign -ceq '{') { $value = New-Table }
        else { $value = New-Object Collections.ArrayList }
        if ($container -is [hashtable]) { $container[$key] = $value } else { [void] $container.Add($value) }
        $state = if ($open.Count) { 'next' } else { 'done' }
        if ($sign) {
            if ($open.Count -ge $JsonDeepest) { throw $wrong }
            $open.Push($container)
            $container = $value
            $state = if ($sign -ceq '{') { 'begin' } else { 'first' }
        }
    }
    if ($state -cne 'done' -or $Text.Substring($at).Trim(' ', "`t", "`r", "`n")) { throw $wrong }
    return , $root[0]
}

# A JSON object as a table, $null for everything else.
function ConvertFrom-JsonText([string] $Text) {
    try { $value = ConvertFrom-Json8259 $Text } catch [FormatException] { return $null }
    if ($value -is [hashtable]) { return $value }
    return $null
}

# As Python's repr: the shortest digits that read back alike.
function ConvertTo-RealText([double] $Number) {
    $found = [regex]::Match($Number.ToString('R', $Invariant), '\A(-?)([0-9]+)(?:\.([0-9]+))?(?:E([+-][0-9]+))?\z')
    $whole = $found.Groups[2].Value
    $digits = $whole + $found.Groups[3].Value
    $point = $whole.Length
    if ($found.Groups[4].Success) { $point += [int]::Parse($found.Groups[4].Value, [Globalization.NumberStyles]::AllowLeadingSign, $Invariant) }
    $short = $digits.TrimStart('0')
    $point -= $digits.Length - $short.Length
    $digits = $short.TrimEnd('0')
    $sign = $found.Groups[1].Value
    if (-not $digits) { return $sign + '0.0' }
    if ($point -gt 16 -or $point -lt -3) {
        $power = $point - 1
        $rest = if ($digits.Length -gt 1) { '.' + $digits.Substring(1) } else { '' }
        $scale = [Math]::Abs($power).ToString('00', $Invariant)
        return $sign + $digits.Substring(0, 1) + $rest + 'e' + $(if ($power -lt 0) { '-' } else { '+' }) + $scale
    }
    if ($point -le 0) { return $sign + '0.' + ('0' * -$point) + $digits }
    if ($point -ge $digits.Length) { return $sign + $digits + ('0' * ($point - $digits.Length)) + '.0' }
    return $sign + $digits.Substring(0, $point) + '.' + $digits.Substring($point)
}

$JsonEscapes = New-Table
foreach ($pair in @(@('"', '\"'), @('\', '\\'), @("`n", '\n'), @("`r", '\r'), @("`t", '\t'), @("`f", '\f'), @("`b", '\b'))) {
    $JsonEscapes[$pair[0]] = $pair[1]
}

function ConvertTo-JsonString([string] $Text) {
    $escaped = [regex]::Replace($Text, '[^\x20\x21\x23-\x5b\x5d-\x7e]', {
            param($found)
            if ($JsonEscapes.ContainsKey($found.Value)) { return $JsonEscapes[$found.Value] }
            return '\u' + ([int] [char] $found.Value).ToString('x4', $Invariant)
        })
    return '"' + $escaped + '"'
}

# One line in ASCII, whatever the console's code page; keys in ordinal order, as json.dumps(..., sort_keys=True, separators=(",", ":")).
function ConvertTo-JsonText($Value) {
    if ($null -eq $Value) { return 'null' }
    if ($Value -is [bool]) { return $(if ($Value) { 'true' } else { 'false' }) }
    if ($Value -is [double] -or $Value -is [single] -or $Value -is [decimal]) { return ConvertTo-RealText ([double] $Value) }
    if ($Value -is [int] -or $Value -is [long] -or $Value -is [uint32] -or $Value -is [uint64] -or $Value -is [Numerics.BigInteger]) {
        return $Value.ToString($Invariant)
    }
    if ($Value -is [Collections.IDictionary]) {
        $names = [string[]] @($Value.Keys)
        [Array]::Sort($names, [StringComparer]::Ordinal)
        return '{' + (@(foreach ($name in $names) { (ConvertTo-JsonString $name) + ':' + (ConvertTo-JsonText $Value[$name]) }) -join ',') + '}'
    }
    if ($Value -is [Collections.IEnumerable] -and $Value -isnot [string]) {
        return '[' + (@(foreach ($part in $Value) { ConvertTo-JsonText $part }) -join ',') + ']'
    }
    return ConvertTo-JsonString ([string] $Value)
}

# ---------------------------------------------------------------- the host's files

function Get-StorePath([string] $Name) { Join-Path $Root $FileNames[$Name] }

# What a virus scanner or a backup holds for a moment is tried again, for some seconds.
function Invoke-Patiently([scriptblock] $Work, [double] $Seconds = $Patience) {
    $end = (Get-Clock) + $Seconds
    while ($true) {
        try { return & $Work } catch {
            $err = $_.Exception
            while ($null -ne $err.InnerException) { $err = $err.InnerException }
            $held = ($err -is [IO.IOException] -and $err -isnot [IO.DirectoryNotFoundException] -and $err -isnot [IO.FileNotFoundException]) -or
                $err -is [UnauthorizedAccessException]
            if (-not $held -or (Get-Clock) -gt $end) { throw $err }
            Start-Sleep -Milliseconds 50
        }
    }
}

# How the names of a file's temporary files begin.
function Get-TemporaryName([string] $Path) { return '.gatecontrol.' + [IO.Path]::GetFileName($Path) + '.' }

function Get-Temporary([string] $Path) {
    $folder = [IO.Path]::GetDirectoryName($Path)
    if (-not [IO.Directory]::Exists($folder)) { return @() }
    return , @([IO.Directory]::GetFiles($folder, (Get-TemporaryName $Path) + '*'))
}

# Temporary files whose writer was killed, with their secrets.
function Remove-HalfWritten([string] $Folder) {
    if (-not [IO.Directory]::Exists($Folder)) { return }
    foreach ($left in [IO.Directory]::GetFiles($Folder, '.gatecontrol.*')) {
        try {
            if (([DateTime]::UtcNow - [IO.File]::GetLastWriteTimeUtc($left)).TotalSeconds -gt $Abandoned) { [IO.File]::Delete($left) }
        } catch { Write-Debug $_ }
    }
}

# The bytes of a file, $null where there is none. Opened so that it can be replaced and deleted meanwhile; between the two halves of a Replace
# there is no file of this name, only its successor's.
function Read-Bytes([string] $Path) {
    $end = (Get-Clock) + 2
    while (-not [IO.File]::Exists($Path)) {
        $coming = @(Get-Temporary $Path).Count
        if ([IO.File]::Exists($Path)) { break }
        if (-not $coming -or (Get-Clock) -gt $end) { return $null }
        Start-Sleep -Milliseconds 5
    }
    try {
        return , (Invoke-Patiently {
                $share = [IO.FileShare]::ReadWrite -bor [IO.FileShare]::Delete
                $stream = New-Object IO.FileStream($Path, [IO.FileMode]::Open, [IO.FileAccess]::Read, $share)
                try {
                    $copy = New-Object IO.MemoryStream
                    $stream.CopyTo($copy)
                    return , $copy.ToArray()
                } finally { $stream.Dispose() }
            })
    } catch [IO.FileNotFoundException] { return $null }
}

function Read-TextFile([string] $Path) {
    $bytes = Read-Bytes $Path
    if ($null -eq $bytes) { return $null }
    return $Utf8.GetString($bytes)
}

# A file that a person wrote: Notepad and > of PowerShell begin it with a mark, > of Windows PowerShell writes UTF-16.
function Read-PersonsFile([string] $Path) {
    $bytes = Read-Bytes $Path
    if ($null -eq $bytes) { return $null }
    $reader = New-Object IO.StreamReader((New-Object IO.MemoryStream(, [byte[]] $bytes)), $Utf8, $true)
    return $reader.ReadToEnd().Trim()
}

function Read-StoreText([string] $Name) { Read-TextFile (Get-StorePath $Name) }

# A named file's object, an empty one where there is none or it is damaged.
function Read-StoreTable([string] $Name) {
    $text = Read-StoreText $Name
    $table = if ($text) { ConvertFrom-JsonText $text } else { $null }
    if ($null -eq $table) { return New-Table }
    return $table
}

# The whole file or nothing: a temporary file in the same folder, flushed to the disk, then put in its place.
function Write-TextFile([string] $Path, [string] $Text) {
    $folder = [IO.Path]::GetDirectoryName($Path)
    [void] [IO.Directory]::CreateDirectory($folder)
    Remove-HalfWritten $folder
    $temporary = Join-Path $folder ((Get-TemporaryName $Path) + [Guid]::NewGuid().ToString('N'))
    try {
        $stream = New-Object IO.FileStream($temporary, [IO.FileMode]::CreateNew, [IO.FileAccess]::Write, [IO.FileShare]::Read)
        try {
            $bytes = $Utf8.GetBytes($Text)
            $stream.Write($bytes, 0, $bytes.Length)
            $stream.Flush($true)
        } finally { $stream.Dispose() }
        # A Replace that fails halfway leaves only the successor, which then moves to the place.
        Invoke-Patiently {
            if ([IO.File]::Exists($Path)) { [IO.File]::Replace($temporary, $Path, [NullString]::Value) } else { [IO.File]::Move($temporary, $Path) }
        }
    } finally { if ([IO.File]::Exists($temporary)) { [IO.File]::Delete($temporary) } }
}

function Write-StoreText([string] $Name, [string] $Text) { Write-TextFile (Get-StorePath $Name) $Text }

function Write-StoreTable([string] $Name, $Table) { Write-StoreText $Name ((ConvertTo-JsonText $Table) + "`n") }

function Remove-TextFile([string] $Path) { Invoke-Patiently { if ([IO.File]::Exists($Path)) { [IO.File]::Delete($Path) } } }

function Remove-StoreFile([string[]] $Names) { foreach ($name in $Names) { Remove-TextFile (Get-StorePath $name) } }

function Get-Value($Table, [string] $Name, $Default) {
    if ($Table.ContainsKey($Name) -and $null -ne $Table[$Name]) { return $Table[$Name] }
    return $Default
}

# One at a time: who stores, arms, takes, undoes or takes away. A file in the protected folder that is open for nobody else; a mutex would be anybody's to
# make first. It is free as soon as its process is gone. Whoever holds it may take it again.
function Use-Lock([double] $Seconds, [scriptblock] $Work, [string] $Name = 'lock') {
    if ($Run.locks.ContainsKey($Name)) { return & $Work }
    [void] [IO.Directory]::CreateDirectory($Root)
    try {
        $Run.locks[$Name] = Invoke-Patiently -Seconds $Seconds {
            New-Object IO.FileStream((Join-Path $Root $Name), [IO.FileMode]::OpenOrCreate, [IO.FileAccess]::ReadWrite, [IO.FileShare]::None)
        }
    } catch { throw "another run of the agent is at work on this host ($($_.Exception.Message)); try again in a minute" }
    try { return & $Work } finally {
        $Run.locks[$Name].Dispose()
        $Run.locks.Remove($Name)
    }
}

# What the last beat left behind; what is damaged counts as forgotten.
function Get-Memory {
    $known = Read-StoreTable 'state'
    $memory = New-Table
    foreach ($key in 'not_before', 'last_try', 'last_beat', 'last_check', 'connected_since', 'requests') {
        $value = $known[$key]
        if (($value -is [long] -or $value -is [double]) -and $value -ge 0 -and $value -lt 1e11) { $memory[$key] = $value }
    }
    if ($known['peer_enabled'] -is [bool]) { $memory['peer_enabled'] = $known['peer_enabled'] }
    if ($known['reported'] -is [string]) { $memory['reported'] = $known['reported'] }
    $failure = $known['error']
    if ($failure -is [hashtable] -and $failure['kind'] -is [string] -and $failure['text'] -is [string]) { $memory['error'] = $failure }
    $refused = $known['refused']
    if ($refused -is [hashtable] -and $refused['hash'] -is [string] -and ($null -eq $refused['text'] -or $refused['text'] -is [string])) {
        $numbers = @($refused['wait'], $refused['again'] | Where-Object { $_ -is [long] -or $_ -is [double] })
        if ($numbers.Count -eq 2) { $memory['refused'] = $refused }
    }
    return $memory
}

# Note what a run has seen; what another process noted meanwhile stays.
function Set-Memory($Changed) {
    Use-Lock 60 {
        $memory = Get-Memory
        foreach ($key in $Changed.Keys) { $memory[$key] = $Changed[$key] }
        Write-StoreTable 'state' $memory
    } 'state.lock'
}

function Get-MachineFingerprint {
    $guid = if ($OnWindows) {
        (Get-ItemProperty -LiteralPath 'HKLM:\SOFTWARE\Microsoft\Cryptography' -Name MachineGuid).MachineGuid
    } else { Read-TextFile '/etc/machine-id' }
    return Get-Digest (([string] $guid).Trim().ToLowerInvariant())
}

# The DNS name: that of NetBIOS ends after 15 characters.
function Get-HostName { [Net.Dns]::GetHostName().Split('.')[0].ToLowerInvariant() }

# What WireGuard for Windows takes for an interface, and no way out of the folder.
function Assert-InterfaceName([string] $Name) {
    $device = Test-Match $Name.ToUpperInvariant() '(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|COM[0-9]|LPT[0-9])(\..*)?'
    if (-not $device -and (Test-Match $Name '[A-Za-z0-9_=+.-]{0,14}[A-Za-z0-9_=+-]')) { return $Name }
    $shown = $Name.Substring(0, [Math]::Min(40, $Name.Length)) -replace '[^\x20-\x7e]', '?'
    throw (New-Failure ("the interface's name $shown is none that WireGuard takes; set " +
            'gatecontrol_interface to 1 to 15 letters, digits or _=+.-, no name of a device and no dot at the end') 'settings')
}

# ---------------------------------------------------------------- the config: parsed from an allowlist, checked, rendered anew

# The bytes of an address as text, $null for what Python's ipaddress refuses too: no leading zeros, no zones, dots only at the end.
function ConvertTo-AddressBytes([string] $Text) {
    if (Test-Match $Text '(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}') {
        $numbers = @($Text.Split('.') | ForEach-Object { [int] $_ })
        if (@($numbers | Where-Object { $_ -gt 255 }).Count) { return $null }
        return , [byte[]] $numbers
    }
    if (-not (Test-Match $Text '[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*') -or $Text.Contains(':::')) { return $null }
    $dotted = [regex]::Match($Text, '\A(.*:)([^:]*\.[^:]*)\z')
    if ($dotted.Success) {
        $tail = ConvertTo-AddressBytes $dotted.Groups[2].Value
        if ($null -eq $tail) { return $null }
        $high = ($tail[0] * 256 + $tail[1]).ToString('x', $Invariant)
        $given = $dotted.Groups[1].Value + $high + ':' + ($tail[2] * 256 + $tail[3]).ToString('x', $Invariant)
    } else { $given = $Text }
    $halves = $given -csplit '::', 0, 'SimpleMatch'
    if ($halves.Length -gt 2) { return $null }
    $groups = @(foreach ($half in $halves) { , @(if ($half) { $half.Split(':') }) })
    $count = 0
    foreach ($part in $groups) { $count += @($part).Count; foreach ($group in $part) { if (-not (Test-Match $group '[0-9A-Fa-f]{1,4}')) { return $null } } }
    if (($halves.Length -eq 1 -and $count -ne 8) -or ($halves.Length -eq 2 -and $count -gt 7)) { return $null }
    $all = @($groups[0]) + @('0') * (8 - $count)
    if ($halves.Length -eq 2) { $all += @($groups[1]) }
    $bytes = New-Object byte[] 16
    for ($index = 0; $index -lt 8; $index++) {
        $number = [Convert]::ToInt32($all[$index], 16)
        $bytes[2 * $index] = $number -shr 8
        $bytes[2 * $index + 1] = $number -band 255
    }
    return , $bytes
}

# As RFC 5952 has it, and never with dots: one spelling in every release of Python and .NET.
function ConvertTo-AddressText([byte[]] $Bytes) {
    if ($Bytes.Length -eq 4) { return $Bytes -join '.' }
    $numbers = @(for ($index = 0; $index -lt 8; $index++) { $Bytes[2 * $index] * 256 + $Bytes[2 * $index + 1] })
    $best = -1; $length = 1
    for ($index = 0; $index -lt 8; $index++) {
        $end = $index
        while ($end -lt 8 -and $numbers[$end] -eq 0) { $end++ }
        if ($end - $index -gt $length) { $best = $index; $length = $end - $index }
    }
    $words = @($numbers | ForEach-Object { $_.ToString('x', $Invariant) })
    if ($best -lt 0) { return $words -join ':' }
    $left = if ($best) { $words[0..($best - 1)] -join ':' } else { '' }
    $right = if ($best + $length -lt 8) { $words[($best + $length)..7] -join ':' } else { '' }
    return $left + '::' + $right
}

# @(bytes, prefix) of ADDRESS or ADDRESS/PREFIX; as a network the bits behind the prefix are cleared. $null for what is neither.
function Get-Prefixed([string] $Text, [bool] $Network) {
    $parts = $Text.Split('/')
    $bytes = ConvertTo-AddressBytes $parts[0]
    if ($null -eq $bytes -or $parts.Length -gt 2) { return $null }
    $prefix = $bytes.Length * 8
    if ($parts.Length -eq 2) {
        if (-not (Test-Match $parts[1] '[0-9]{1,3}') -or [int] $parts[1] -gt $prefix) { return $null }
        $prefix = [int] $parts[1]
    }
    if ($Network) {
        for ($index = 0; $index -lt $bytes.Length; $index++) {
            $kept = [Math]::Max(0, [Math]::Min(8, $prefix - 8 * $index))
            $bytes[$index] = $bytes[$index] -band ((255 -shl (8 - $kept)) -band 255)
        }
    }
    return , @($bytes, $prefix)
}

function ConvertTo-Prefixed([string] $Text, [bool] $Network) {
    $found = Get-Prefixed $Text $Network
    if ($null -eq $found) { throw "has $Text, which is not an IP address or network" }
    return (ConvertTo-AddressText $found[0]) + '/' + $found[1].ToString($Invariant)
}

# The spelling of an address or network that a program named; what is none stays as it is.
function ConvertTo-Canonical([string] $Text) {
    $found = Get-Prefixed $Text $false
    if ($null -eq $found) { return $Text }
    $address = ConvertTo-AddressText $found[0]
    if ($Text.Contains('/')) { return $address + '/' + $found[1].ToString($Invariant) }
    return $address
}

# Whether an address or network lies in one of the rules that are networks.
function Test-Inside([string] $Text, $Rules) {
    $inner = Get-Prefixed $Text $true
    foreach ($rule in $Rules) {
        if ($rule -isnot [string]) { continue }
        $outer = Get-Prefixed $rule $true
        if ($null -eq $outer -or $outer[0].Length -ne $inner[0].Length -or $outer[1] -gt $inner[1]) { continue }
        $cut = Get-Prefixed ((ConvertTo-AddressText $inner[0]) + '/' + $outer[1].ToString($Invariant)) $true
        if (($cut[0] -join '.') -ceq ($outer[0] -join '.')) { return $true }
    }
    return $false
}

function Test-Literal([string] $Text) { return Test-Match $Text '[0-9.]+|[^\n]*:[^\n]*' }

function ConvertTo-Key([string] $Text) {
    if (-not (Test-Match $Text '[A-Za-z0-9+/]{43}=')) { throw 'is not a key of 32 bytes in base64' }
    $bytes = [Convert]::FromBase64String($Text)
    if ([Convert]::ToBase64String($bytes) -cne $Text) { throw 'is not a key of 32 bytes in base64' }
    if (@($bytes | Where-Object { $_ -ne 0 }).Count -eq 0) { throw 'is all zeros, which would erase the key' }
    return $Text
}

# A number as text; $null for 0 and for words that mean "not set".
function ConvertTo-Number([string] $Text, [long] $Low, [long] $High, [string[]] $Unset = @()) {
    $said = $Text.ToLowerInvariant()
    if (Test-Among $said $Unset) { return $null }
    if (-not (Test-Match $said '[0-9]{1,10}|0x[0-9a-f]{1,8}')) { throw 'is not a number' }
    $number = if ($said.StartsWith('0x', [StringComparison]::Ordinal)) { [Convert]::ToInt64($said.Substring(2), 16) } else { [long] $said }
    if ($number -and ($number -lt $Low -or $number -gt $High)) { throw "is not between $Low and $High" }
    if ($number) { return $number.ToString($Invariant) }
    return $null
}

function ConvertTo-Server([string] $Text) {
    if (Test-Literal $Text) {
        $bytes = ConvertTo-AddressBytes $Text
        if ($null -eq $bytes) { throw "has $Text, which is not an IP address or network" }
        return ConvertTo-AddressText $bytes
    }
    $label = '[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?'
    if ($Text.Length -gt 253 -or -not (Test-Match $Text "$label(\.$label)*\.?")) { throw "has $Text, which is neither an address nor a domain" }
    return $Text
}

# @(host, port) of an endpoint; the last colon parts them, an IPv6 literal may stand in brackets.
function Split-Endpoint([string] $Text) {
    $found = [regex]::Match($Text, '\A(?:\[([0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*)\]|([^\[\]]+)):([0-9]{1,5})\z')
    if (-not $found.Success) { throw 'is not HOST:PORT' }
    $port = [int] $found.Groups[3].Value
    if ($port -lt 1 -or $port -gt 65535) { throw 'has a port that is not between 1 and 65535' }
    return @((ConvertTo-Server ($found.Groups[1].Value + $found.Groups[2].Value)), $port)
}

function Join-Endpoint([string] $Name, [int] $Port) {
    $shown = if ($Name.Contains(':')) { "[$Name]" } else { $Name }
    return $shown + ':' + $Port.ToString($Invariant)
}

$Keys = @{
    interface = 'PrivateKey', 'Address', 'DNS', 'MTU', 'Table', 'ListenPort', 'FwMark'
    peer = 'PublicKey', 'PresharedKey', 'Endpoint', 'AllowedIPs', 'PersistentKeepalive'
}
$Hooks = 'PreUp', 'PostUp', 'PreDown', 'PostDown'
$Lists = 'Address', 'DNS', 'AllowedIPs'

function ConvertTo-Setting([string] $Name, [string] $Text) {
    switch -CaseSensitive ($Name) {
        'Address' { return ConvertTo-Prefixed $Text $false }
        'AllowedIPs' { return ConvertTo-Prefixed $Text $true }
        'DNS' { return ConvertTo-Server $Text }
        'Endpoint' { $parts = Split-Endpoint $Text; return Join-Endpoint $parts[0] $parts[1] }
        'MTU' { return ConvertTo-Number $Text 576 65535 }
        'ListenPort' { return ConvertTo-Number $Text 1 65535 }
        'PersistentKeepalive' { return ConvertTo-Number $Text 1 65535 'off' }
        'FwMark' { return ConvertTo-Number $Text 1 4294967295 'off' }
        'Table' {
            $said = $Text.ToLowerInvariant()
            if (Test-Same $said 'off') { return 'off' }
            if (Test-Same $said 'main') { return '254' }
            return ConvertTo-Number $Text 1 4294967295 'auto'
        }
        default { return ConvertTo-Key $Text }
    }
}

# Texts in their order, each once.
function Get-Distinct($Values) {
    $seen = New-Table
    foreach ($value in $Values) { if (-not $seen.ContainsKey($value)) { $seen[$value] = $true; $value } }
}

# Put a value into a section; a key of $Lists grows, without doubles.
function Add-Setting($Section, [string] $Name, [string] $Text) {
    if ($Text.Contains('<') -and $Text.Contains('>')) { throw 'is a placeholder, so the server could not fill it in' }
    if ([regex]::IsMatch($Text, '[^\x00-\x7f]')) { throw 'has a character outside ASCII' }
    if ($Lists -ccontains $Name) {
        $parts = @([regex]::Split($Text, '[,\t\n\v\f\r \x1c-\x1f]+') | Where-Object { $_ } | ForEach-Object { ConvertTo-Setting $Name $_ })
        $values = @(Get-Distinct (@(Get-Value $Section $Name @()) + $parts))
        if ($values.Count) { $Section[$Name] = $values }
        return
    }
    $value = ConvertTo-Setting $Name $Text
    if ($null -ne $value) { $Section[$Name] = $value }
}

# The spelling of a known key, $null for another.
function Get-KnownKey([string] $Kind, [string] $Given) {
    foreach ($name in $Keys[$Kind] + $Hooks) {
        if ([string]::Equals($name, $Given, [StringComparison]::OrdinalIgnoreCase) -and (Test-Match $Given '[\x21-\x7e]+')) { return $name }
    }
    return $null
}

# Take one line KEY = VALUE into its section.
function Read-ConfigLine([string] $Kind, $Section, $Seen, [string] $Line, [int] $Number, [bool] $AllowHooks) {
    $at = $Line.IndexOf([char] '=')
    if ($null -eq $Section -or $at -lt 0) { throw (New-Refusal 'not KEY = VALUE in a section' 'syntax' $Number) }
    $name = Get-KnownKey $Kind ($Line.Substring(0, $at).Trim(' ', "`t"))
    $value = $Line.Substring($at + 1).Trim(' ', "`t")
    if ($Hooks -ccontains $name) {
        if (-not $AllowHooks) { throw (New-Refusal "$name is a hook, which WireGuard runs as SYSTEM; it is refused unless hooks are allowed" 'syntax' $Number) }
        if ($Kind -cne 'interface' -or -not $value) { throw (New-Refusal "$name is not allowed in [$Kind]" 'syntax' $Number) }
        $Section[$name] = @(Get-Value $Section $name @()) + $value
        return
    }
    if ($null -eq $name) { throw (New-Refusal "this key is not allowed in [$Kind]" 'syntax' $Number) }
    if ($Seen.ContainsKey($name) -and $Lists -cnotcontains $name) { throw (New-Refusal "a second $name" 'syntax' $Number) }
    $Seen[$name] = $true
    try { Add-Setting $Section $name $value } catch { throw (New-Refusal "$name $($_.Exception.Message)" 'syntax' $Number) }
}

# @{interface; peers} of a config's text, each a table by canonical key. Throws for anything that is not on the allowlist.
function ConvertFrom-ConfigText([string] $Text, [bool] $AllowHooks) {
    if ([regex]::IsMatch($Text, '\A[\t-\r\x1c-\x1f\x85\p{Z}]*\z')) { throw (New-Refusal 'the config is empty') }
    $config = @{ interface = $null; peers = @() }
    $section = $null; $kind = ''; $seen = $null; $number = 0
    $lines = $Text.Split("`n")
    $control = '[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]|[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]'
    foreach ($raw in $lines) {
        $number++
        if ([regex]::IsMatch($raw, $control)) { throw (New-Refusal 'a control character' 'syntax' $number) }
        $line = $raw.Split('#')[0].Trim(' ', "`t")
        if (-not $line) { continue }
        if (-not $line.StartsWith('[', [StringComparison]::Ordinal)) { Read-ConfigLine $kind $section $seen $line $number $AllowHooks; continue }
        $section = New-Table
        $seen = New-Table
        $title = if (Test-Match $line '[\x20-\x7e]+') { $line.ToLowerInvariant() } else { '' }
        if ($title -ceq '[interface]' -and $null -eq $config.interface) { $kind = 'interface'; $config.interface = $section }
        elseif ($title -ceq '[peer]') { $kind = 'peer'; $config.peers += , $section }
        elseif ($title -ceq '[interface]') { throw (New-Refusal 'a second [Interface]' 'syntax' $number) }
        else { throw (New-Refusal 'a section other than [Interface] and [Peer]' 'syntax' $number) }
    }
    if ($lines[-1]) { throw (New-Refusal 'the text is truncated: no line end after the last line' 'syntax' $lines.Length) }
    return Assert-Complete $config
}

# The config itself; throws where something is missing or contradicts itself.
function Assert-Complete($Config) {
    if ($null -eq $Config.interface -or -not $Config.peers.Count) { throw (New-Refusal 'the config has no [Interface] or no [Peer]') }
    foreach ($name in 'PrivateKey', 'Address') { if (-not $Config.interface.ContainsKey($name)) { throw (New-Refusal "[Interface] has no $name") } }
    foreach ($peer in $Config.peers) {
        foreach ($name in 'PublicKey', 'AllowedIPs') { if (-not $peer.ContainsKey($name)) { throw (New-Refusal "[Peer] has no $name") } }
    }
    foreach ($name in 'PublicKey', 'AllowedIPs') {
        $values = @($Config.peers | ForEach-Object { $_[$name] })
        if (@(Get-Distinct $values).Count -lt $values.Count) { throw (New-Refusal "two [Peer] sections share a value of $name") }
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
                $values = if ($Hooks -ccontains $name) { $section[1][$name] } else { , (@($section[1][$name]) -join ', ') }
                foreach ($value in $values) { $text += "$name = $value`n" }
            }
        }
        $parts += $text
    }
    return $parts -join "`n"
}

# Ansible lets a list be given as "a,b". $null where the policy says nothing.
function Get-PolicyList($Policy, [string] $Name) {
    $value = $Policy[$Name]
    if ($value -is [string]) { return , @($value.Split(',') | ForEach-Object { $_.Trim() } | Where-Object { $_ }) }
    if ($value -is [Collections.IEnumerable] -and $value -isnot [hashtable]) { return , @($value) }
    return $value
}

# A policy's value as Python's str() gives it.
function ConvertTo-PolicyText($Value) {
    if ($Value -is [bool]) { return $(if ($Value) { 'True' } else { 'False' }) }
    if ($Value -is [string]) { return $Value }
    if ($Value -is [Collections.IEnumerable]) { return (@($Value | ForEach-Object { [string] $_ }) -join ',') }
    return ConvertTo-JsonText $Value
}

function Set-Override($Section, [string] $Name, $Value) {
    if ($null -eq $Value) { return }
    $Section.Remove($Name)
    try { Add-Setting $Section $Name (ConvertTo-PolicyText $Value) } catch { throw (New-Refusal "the local value of $Name $($_.Exception.Message)" 'policy') }
}

# The file that belongs to a server's text under a local policy.
function Get-RenderedConfig([string] $Offered, $Policy) {
    $config = ConvertFrom-ConfigText $Offered (Test-True $Policy['allow_hooks'])
    $allowed = Get-PolicyList $Policy 'allowed_ips'
    if ($null -ne $allowed -and $config.peers.Count -gt 1) {
        throw (New-Refusal "allowed IPs cannot be overridden in a config with $($config.peers.Count) peers" 'policy')
    }
    Set-Override $config.interface 'DNS' (Get-PolicyList $Policy 'dns')
    Set-Override $config.interface 'MTU' $Policy['mtu']
    Set-Override $config.interface 'Table' $Policy['table']
    Set-Override $config.interface 'FwMark' $Policy['fwmark']
    Set-Override $config.interface 'ListenPort' $Policy['listen_port']
    foreach ($peer in $config.peers) {
        Set-Override $peer 'AllowedIPs' $allowed
        Set-Override $peer 'PersistentKeepalive' $Policy['persistent_keepalive']
    }
    $config = Assert-Complete $config
    Assert-Policy $config $Policy
    # WireGuard for Windows knows no FwMark and no Table but "off"; a /0 turns its kill switch on, the two halves route the same.
    $config.interface.Remove('FwMark')
    if ((Get-Value $config.interface 'Table' '') -cne 'off') { $config.interface.Remove('Table') }
    $halves = @{ '0.0.0.0/0' = '0.0.0.0/1', '128.0.0.0/1'; '::/0' = '::/1', '8000::/1' }
    if (-not (Test-True $Policy['kill_switch'])) {
        foreach ($peer in $config.peers) {
            $peer['AllowedIPs'] = @(Get-Distinct @($peer['AllowedIPs'] | ForEach-Object { if ($halves.ContainsKey($_)) { $halves[$_] } else { $_ } }))
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
            $name, $port = Split-Endpoint $peer['Endpoint']
            $names = $name.ToLowerInvariant(), (Join-Endpoint $name $port).ToLowerInvariant()
            $named = @($endpoints | Where-Object { Test-Among $_.ToLowerInvariant() $names }).Count
            if (-not $named -and -not ((Test-Literal $name) -and (Test-Inside $name $endpoints))) {
                throw (New-Refusal "the endpoint $($peer['Endpoint']) is not one of the allowed endpoints" 'policy')
            }
        }
        foreach ($network in $peer['AllowedIPs']) {
            if ($null -ne $allowed -and -not (Test-Inside $network $allowed)) {
                throw (New-Refusal "$network in AllowedIPs is outside the allowed networks" 'policy')
            }
        }
    }
    if ($null -eq $servers) { return }
    foreach ($entry in @(Get-Value $Config.interface 'DNS' @())) {
        $fits = if (Test-Literal $entry) { Test-Inside $entry $servers }
        else { @($servers | Where-Object { Test-Same $_.ToLowerInvariant() $entry.ToLowerInvariant() }).Count }
        if (-not $fits) { throw (New-Refusal "the DNS entry $entry is not allowed" 'policy') }
    }
}

function Get-MaskedValue([string] $Text) { return '(masked, digest ' + (Get-Digest $Text).Substring(0, 8) + ')' }

# Without blanks at its ends, as Python's strip() has it.
function Get-Stripped([string] $Text) { return [regex]::Replace($Text, '\A[\t-\r\x1c-\x20\x85\p{Z}]+|[\t-\r\x1c-\x20\x85\p{Z}]+\z', '') }

# A text for a diff: a private or preshared key is shown as a short digest of itself, so that its change is seen and never the key.
function ConvertTo-MaskedText([string] $Text) {
    try { [void] (ConvertFrom-ConfigText $Text $true); $whole = $true } catch { $whole = $false }
    $known = @($Keys['interface'] + $Keys['peer'] + $Hooks | ForEach-Object { $_.ToLowerInvariant() })
    $lines = [regex]::Split($Text, '\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]')
    $shown = foreach ($line in @($lines | Select-Object -First ($lines.Length - [int] ($lines[-1].Length -eq 0)))) {
        $at = $line.IndexOf([char] '=')
        $name = if ($at -lt 0) { $line } else { $line.Substring(0, $at) }
        $title = if (Test-Match $name '[\x00-\x7f]*') { (Get-Stripped $name).ToLowerInvariant() } else { '' }
        $secret = Test-Among $title @('privatekey', 'presharedkey')
        if ((Test-Among $title $known) -and -not $secret) {
            if ($whole -and (Test-Same $title 'publickey')) { $line }
            else { [regex]::Replace($line, '[A-Za-z0-9+/]{40,}=*', { param($found) Get-MaskedValue $found.Value }) }
        } elseif (Test-Among (Get-Stripped $line).ToLowerInvariant() @('', '[interface]', '[peer]')) { $line }
        elseif ($secret) { $name + '= ' + (Get-MaskedValue $(if ($at -lt 0) { '' } else { Get-Stripped $line.Substring($at + 1) })) }
        else { Get-MaskedValue $line }
    }
    return -join @($shown | ForEach-Object { $_ + "`n" })
}

# A private key as WireGuard keeps it, with the bits fixed that X25519 ignores.
function Get-ClampedKey([string] $Key) {
    $bytes = [Convert]::FromBase64String($Key)
    $bytes[0] = $bytes[0] -band 248
    $bytes[31] = ($bytes[31] -band 127) -bor 64
    return [Convert]::ToBase64String($bytes)
}

# ---------------------------------------------------------------- proof that this host has its peer's private key

# A private key times a point of Curve25519, both 32 bytes: the Montgomery ladder of RFC 7748, section 5. Not in constant time.
function Get-SharedSecret([byte[]] $Private, [byte[]] $Point) {
    $two = New-Object Numerics.BigInteger(2)
    $prime = [Numerics.BigInteger]::Pow($two, 255) - 19
    $scalar = [byte[]] $Private.Clone()
    $scalar[0] = $scalar[0] -band 248
    $scalar[31] = ($scalar[31] -band 127) -bor 64
    $given = [byte[]] $Point.Clone()
    $given[31] = $given[31] -band 127
    $u = (New-Object Numerics.BigInteger(, [byte[]] ($given + [byte] 0))) % $prime
    $one = [Numerics.BigInteger]::One; $zero = [Numerics.BigInteger]::Zero
    $x2 = $one; $z2 = $zero; $x3 = $u; $z3 = $one
    for ($bit = 254; $bit -ge 0; $bit--) {
        $swap = ($scalar[$bit -shr 3] -shr ($bit -band 7)) -band 1
        if ($swap) { $x2, $x3, $z2, $z3 = $x3, $x2, $z3, $z2 }
        $sum = $x2 + $z2
        $difference = $x2 - $z2
        $plus = ($sum * $sum) % $prime
        $minus = ($difference * $difference) % $prime
        $cross = ($x3 - $z3) * $sum
        $other = ($x3 + $z3) * $difference
        $total = $cross + $other
        $rest = $cross - $other
        $x3 = ($total * $total) % $prime
        $z3 = ($u * (($rest * $rest) % $prime)) % $prime
        $x2 = ($plus * $minus) % $prime
        $gap = $plus - $minus
        $z2 = ($gap * ($plus + 121665 * $gap)) % $prime
        if ($swap) { $x2, $x3, $z2, $z3 = $x3, $x2, $z3, $z2 }
    }
    $product = ($x2 * [Numerics.BigInteger]::ModPow((($z2 % $prime) + $prime) % $prime, $prime - 2, $prime)) % $prime
    $product = ($product + $prime) % $prime
    $bytes = New-Object byte[] 32
    $made = $product.ToByteArray()
    [Array]::Copy($made, $bytes, [Math]::Min(32, $made.Length))
    return , $bytes
}

# The answer to a challenge (a public key, base64) by a private key (base64): 64 hex digits, $null where either is none or the point has a low order.
function Get-Proof([string] $Key, [string] $Challenge) {
    if (-not (Test-Match $Key '[A-Za-z0-9+/]{43}=') -or -not (Test-Match $Challenge '[A-Za-z0-9+/]{43}=')) { return $null }
    $secret = Get-SharedSecret ([Convert]::FromBase64String($Key)) ([Convert]::FromBase64String($Challenge))
    if (@($secret | Where-Object { $_ -ne 0 }).Count -eq 0) { return $null }
    $sha = [Security.Cryptography.SHA256]::Create()
    try {
        $label = [Text.Encoding]::ASCII.GetBytes('gatecontrol possession 1')
        return -join ($sha.ComputeHash([byte[]] ($label + $secret)) | ForEach-Object { $_.ToString('x2', $Invariant) })
    } finally { $sha.Dispose() }
}

# This host's answer: by the key of a change under way, of what the server issued, or of the tunnel's config.
function Get-HostProof($Challenge) {
    if ($Challenge -isnot [string] -or -not $Challenge) { return $null }
    foreach ($text in (Read-StoreText 'offered'), (Read-StoreText 'issued'), (Read-TextFile (Get-ConfigPath))) {
        $found = [regex]::Match([string] $text, '(?im)^[ \t]*PrivateKey[ \t]*=[ \t]*([A-Za-z0-9+/]{43}=)[ \t]*\r?$', 'CultureInvariant')
        if ($found.Success) { return Get-Proof $found.Groups[1].Value $Challenge }
    }
    return $null
}

# ---------------------------------------------------------------- the server

# What the server says, told apart by its fixed English texts: text, kind, advice.
$Again = 'run the play with a secret for this host to enroll it again'
$Forbidden = @(
    @('permission for this resource', 'scope', 'the token needs the scope client (peers on the 1.5.2 era): create one that has it'),
    @('forbidden for token', 'scope', 'no token may do this, only a login in the web interface'),
    @('user account is disabled', 'user_disabled', 'enable the user the token belongs to, or use another user''s token'),
    @('not bound to a peer', 'unbound', "the peer was deleted, or this token never had one: $Again"),
    @('not authorized for this peer', 'wrong_peer', 'the token belongs to another peer: give this host a token of its own'),
    @('bound to a different peer', 'bound_elsewhere', 'two hosts registered with one token: give each host a token of its own'),
    @('different machine', 'machine_binding', 'if this host was rebuilt, reset the token''s machine binding in the web interface'),
    @('fingerprint', 'machine_binding', 'the server binds tokens to machines')
)

# A foreign text as it may stand in a message: one line, no control characters, not too long.
function ConvertTo-Shown([string] $Text) {
    $line = ([regex]::Replace($Text, '[\p{C}\p{Z}]+', ' ')).Trim(' ')
    return $line.Substring(0, [Math]::Min(300, $line.Length))
}

# @(kind, advice) of an answer that is no success.
function Get-FailureKind([int] $Status, [string] $Said, $Body) {
    $low = $Said.ToLowerInvariant()
    $says = { param($Text) $low.Contains($Text) }
    if ($Status -eq 401) { return 'auth', 'check that the token is complete, not expired and not revoked' }
    if ($Status -eq 403 -and $Body.ContainsKey('feature')) {
        return 'licence', "the server's licence does not cover it ($(ConvertTo-Shown ([string] $Body['feature']))): remove peers or extend the licence"
    }
    if ($Status -eq 403) {
        foreach ($row in $Forbidden) { if (& $says $row[0]) { return $row[1], $row[2] } }
        return 'forbidden', 'check the token''s rights in the web interface'
    }
    if ($Status -eq 404 -and $Body.ContainsKey('ok')) { return 'not_found', "the peer was deleted: $Again" }
    if ($Status -eq 404) { return 'endpoint_missing', 'either this release has no such path, or gatecontrol_url is not a GateControl server' }
    if ($Status -eq 429) { return 'rate_limited', '' }
    if ((400, 409 -contains $Status) -and (& $says 'no available ip')) { return 'conflict', 'no address is free in the tunnel''s subnet: delete unused peers' }
    if ($Status -eq 409) { return 'conflict', 'change what it names in the web interface first' }
    if ($Status -eq 400 -and (& $says 'fingerprint')) { return 'machine_binding', 'the machine''s fingerprint has to be 64 lower-case hex digits' }
    if ($Status -eq 400 -and (& $says 'already exists')) { return 'name_taken', 'it was made by somebody else a moment ago: run again' }
    if ($Status -eq 400 -and (& $says 'name')) { return 'invalid_name', 'set gatecontrol_name to 1-63 letters, digits, dots, underscores or hyphens' }
    if ($Status -eq 400) { return 'invalid', 'correct the value named there' }
    if ($Status -ge 500) { return 'server', 'look into the server''s log and run again' }
    return 'protocol', 'check gatecontrol_url and what stands between'
}

# How long a 429 says to wait.
function Get-RetryAfter($Headers) {
    foreach ($name in 'Retry-After', 'RateLimit-Reset') { if (Test-Match ([string] $Headers[$name]) '[0-9]{1,6}') { return [int] $Headers[$name] } }
    return 60
}

function Get-ServerFailure([string] $What, [int] $Status, [string] $Text, $Headers) {
    $body = ConvertFrom-JsonText $Text
    if ($null -eq $body) { $body = New-Table }
    $title = [regex]::Match($Text, '<title>([^<]+)')
    $said = ConvertTo-Shown $(if ($body['error'] -is [string]) { $body['error'] } else { $title.Groups[1].Value })
    if (-not $said) { $said = 'no reason' }
    $kind, $advice = Get-FailureKind $Status $said $body
    $wait = $null
    if ($kind -ceq 'rate_limited') {
        $wait = Get-RetryAfter $Headers
        $advice = "come back in $wait s"
    }
    return New-Failure "$What failed: the server says `"$said`" ($Status); $advice" $kind $Status $wait
}

# What is wrong with a connection: a failure of the kinds network, proxy and tls.
function Get-NetworkFailure([string] $Url, $Problem) {
    $kind = 'network'
    $said = ''
    $advice = 'check the address, the network and the server'
    for ($err = $Problem; $null -ne $err; $err = $err.InnerException) {
        $status = if ($err -is [Net.WebException]) { [string] $err.Status } else { '' }
        if ($err -is [Security.Authentication.AuthenticationException] -or 'TrustFailure', 'SecureChannelFailure' -ccontains $status) { $kind = 'tls' }
        if ($err -isnot [AggregateException]) { $said = ConvertTo-Shown $err.Message }
    }
    if ($kind -ceq 'tls') {
        $advice = 'its certificate has to name this host, and its authority has to be in this machine''s own store (Cert:\LocalMachine\Root)'
        if ($said.Contains('NameMismatch')) { $advice = 'its certificate is for another name: gatecontrol_url has to name the server as its certificate does' }
    } elseif ($said.Contains('407') -or $said.Contains('proxy tunnel')) {
        $kind = 'proxy'
        $advice = 'check gatecontrol_proxy, its user and password'
    }
    return New-Failure "no answer from ${Url}: $said; $advice" $kind
}

# The result of a task, within what is left; throws what it throws.
function Wait-Task($Task, [double] $End, $Request) {
    $left = [Math]::Max(0, [int] (1000 * ($End - (Get-Clock))))
    if (-not $Task.Wait($left)) {
        $Request.Abort()
        throw (New-Object TimeoutException('the answer is too slow'))
    }
    return , $Task.Result
}

# Whether a list keeps a host from the proxy: names, which stand for all below them too, addresses and networks, each with or without a port; "*" keeps all.
function Test-Excluded([string] $Name, [int] $Port, [string] $Listed) {
    $own = $Name.ToLowerInvariant().Trim('[]'.ToCharArray()).TrimEnd('.')
    $literal = $null -ne (Get-Prefixed $own $true)
    foreach ($given in [regex]::Split($Listed.ToLowerInvariant(), '[,\s]+')) {
        $entry = $given
        $found = [regex]::Match($given, '\A([^:]+|\[.+\]):([0-9]+)\z')
        if ($found.Success) {
            if ($found.Groups[2].Value.TrimStart('0') -cne $Port.ToString($Invariant)) { continue }
            $entry = $found.Groups[1].Value
        }
        if ($literal -and (Test-Inside $own @($entry.Trim('[]'.ToCharArray())))) { return $true }
        if ($entry -cne '*') { $entry = $entry.TrimStart('*').Trim('.') }
        if ($entry -and ($entry -ceq '*' -or $own -ceq $entry -or $own.EndsWith('.' + $entry, [StringComparison]::Ordinal))) { return $true }
    }
    return $false
}

function Get-Proxy([Uri] $Uri) {
    $given = [string] (Get-Value $Run.settings 'proxy' '')
    if (Test-Excluded $Uri.Host $Uri.Port ([string] (Get-Value $Run.settings 'no_proxy' ''))) { $given = '' }
    if (-not $given) { return New-Object Net.WebProxy }  # none: those of the environment or of a user are not used
    if (-not $given.Contains('//')) { $given = 'http://' + $given }
    $via = $null
    if (-not [Uri]::TryCreate($given, [UriKind]::Absolute, [ref] $via) -or $via.Scheme -cne 'http' -or -not $via.Host) {
        $shown = $given.Substring($given.LastIndexOf([char] '@') + 1)
        throw (New-Failure "the proxy $shown is not of the form http://proxy.example.com:3128; correct gatecontrol_proxy" 'options')
    }
    $port = if ([regex]::IsMatch($given, ':[0-9]+/?\z')) { $via.Port } else { 3128 }
    $proxy = New-Object Net.WebProxy("http://$($via.Host):$port", $false)
    if ($via.UserInfo) {
        $login = @($via.UserInfo.Split([char[]] ':', 2) + '' | ForEach-Object { [Uri]::UnescapeDataString($_) })
        $proxy.Credentials = New-Object Net.NetworkCredential($login[0], $login[1])
    }
    return $proxy
}

function New-Request([Uri] $Uri, [string] $Method, [double] $Seconds) {
    $request = [Net.HttpWebRequest] [Net.WebRequest]::Create($Uri)
    $request.Method = $Method
    $request.AllowAutoRedirect = $false
    $request.Timeout = $request.ReadWriteTimeout = [int] (1000 * $Seconds)
    $request.Accept = 'application/json'
    $request.UserAgent = "callmetechie.gatecontrol/$Version"
    $request.Proxy = Get-Proxy $Uri
    $headers = @{
        authorization = @('Authorization', "Bearer $($Run.token)"); 'x-api-token' = @('X-API-Token', $Run.token); 'x-api-key' = @('X-API-Key', $Run.token)
    }[[string] (Get-Value $Run.settings 'auth_header' 'authorization')]
    $request.Headers.Add($headers[0], $headers[1])
    $request.Headers.Add('Accept-Language', 'en')
    $request.Headers.Add('X-Client-Platform', 'windows')
    $request.Headers.Add('X-Machine-Fingerprint', $Run.enrollment['fingerprint'])
    if (Test-True (Get-Value $Run.settings 'send_version' $true)) { $request.Headers.Add('X-Client-Version', $Version) }
    return $request
}

# The body's text, bounded in size and time.
function Read-Body($Response, [double] $End, $Request) {
    $stream = $Response.GetResponseStream()
    $copy = New-Object IO.MemoryStream
    $buffer = New-Object byte[] 65536
    while ($true) {
        $count = Wait-Task $stream.ReadAsync($buffer, 0, $buffer.Length) $End $Request
        if (-not $count) { break }
        $copy.Write($buffer, 0, $count)
        if ($copy.Length -gt $Largest) { $Request.Abort(); throw (New-Object IO.IOException('the answer is too large')) }
    }
    if ($Response.ContentLength -gt $copy.Length) {
        throw (New-Object IO.IOException("the answer broke off, $($Response.ContentLength - $copy.Length) bytes are missing"))
    }
    return $Utf8.GetString($copy.ToArray())
}

# One exchange within $End (as Get-Clock): @{status; headers; text}. Throws failures.
function Send-Once([string] $Url, [Uri] $Uri, [string] $Method, $Body, [double] $End) {
    $request = New-Request $Uri $Method ([Math]::Max(1, $End - (Get-Clock)))
    $response = $null
    $Run.requests++
    try {
        if ($null -ne $Body) {
            $bytes = $Utf8.GetBytes((ConvertTo-JsonText $Body))
            $request.ContentType = 'application/json'
            $request.ContentLength = $bytes.Length
            $stream = Wait-Task $request.GetRequestStreamAsync() $End $request
            try { $stream.Write($bytes, 0, $bytes.Length) } finally { $stream.Dispose() }
        }
        try { $response = Wait-Task $request.GetResponseAsync() $End $request } catch {
            # An answer of 400 and above is thrown, and PowerShell wraps what a method throws.
            for ($err = $_.Exception; $null -ne $err; $err = $err.InnerException) { if ($err -is [Net.WebException]) { $response = $err.Response } }
            if ($null -eq $response) { throw }
        }
        return @{ status = [int] $response.StatusCode; headers = $response.Headers; text = Read-Body $response $End $request }
    } catch {
        if ($_.Exception.Data['kind']) { throw }
        throw (Get-NetworkFailure $Url $_.Exception)
    } finally { if ($null -ne $response) { $response.Close() } }
}

# One request; returns the object. Redirects are followed for GET within the origin. Throws failures with the kinds of the agent on Linux.
function Send-Request([string] $What, [string] $Method, [string] $Path, $Body, [double] $End) {
    $url = ([string] $Run.enrollment['url']).TrimEnd('/')
    $uri = $null
    if (-not [Uri]::TryCreate($url + '/api/v1/client' + $Path, [UriKind]::Absolute, [ref] $uri)) {
        throw (New-Failure "the URL $url is none; correct gatecontrol_url" 'options')
    }
    if ($uri.Scheme -ceq 'http' -and -not $uri.IsLoopback -and -not (Test-True $Run.settings['allow_http'])) {
        throw (New-Failure "refusing to send a token over plain http to $($uri.Authority); use https, or set gatecontrol_allow_http" 'options')
    }
    $origin = $uri.GetLeftPart([UriPartial]::Authority)
    foreach ($hop in 1..4) {
        $answer = Send-Once $url $uri $Method $Body $End
        if (301, 302, 303, 307, 308 -notcontains $answer.status) { break }
        $target = $null
        $clear = [Uri]::TryCreate($uri, [string] $answer.headers['Location'], [ref] $target)
        if (-not $clear -or $Method -cne 'GET' -or $target.GetLeftPart([UriPartial]::Authority) -cne $origin) {
            throw (New-Failure ("$url answered with a redirect, which is not followed so that the token stays with this server; " +
                    'correct gatecontrol_url') 'redirect' $answer.status)
        }
        if ($hop -eq 4) { throw (New-Failure "$url redirects in a circle; check its reverse proxy" 'redirect' $answer.status) }
        $uri = $target
    }
    if ($answer.status -ge 300) { throw (Get-ServerFailure $What $answer.status $answer.text $answer.headers) }
    $table = ConvertFrom-JsonText $answer.text
    if ($null -eq $table -or $table['ok'] -isnot [bool] -or -not $table['ok']) {
        throw (New-Failure ("$What failed: the answer of $url is not the JSON of a GateControl server; " +
                'check gatecontrol_url and what stands between') 'protocol' $answer.status)
    }
    return $table
}

# Server and network errors are tried again after 2 s, 3 s, 4.5 s ... 60 s, a rate limit after the time it names, all until $End (as Get-Clock).
function Invoke-Api([string] $What, [string] $Method, [string] $Path, $Body, [double] $End, [bool] $Repeat = $true) {
    $delay = 2.0
    while ($true) {
        $begin = Get-Clock
        $least = $begin + [Math]::Max(1, (Get-Value $Run.settings 'timeout' 15))
        try { return Send-Request $What $Method $Path $Body ([Math]::Min([Math]::Max($End, $begin + 2), $least)) } catch {
            $kind = $_.Exception.Data['kind']
            if ($kind -ceq 'rate_limited') { $pause = [Math]::Max(1, $_.Exception.Data['retry_after']) + (Get-Random -Minimum 0.0 -Maximum 1.0) }
            elseif ($Repeat -and ('server', 'network' -ccontains $kind)) { $pause = $delay * (Get-Random -Minimum 0.8 -Maximum 1.2) }
            else { throw }
            if ((Get-Clock) + $pause -gt $End) { throw }
            Start-Sleep -Milliseconds ([int] (1000 * $pause))
            $delay = [Math]::Min($delay * 1.5, 60.0)
        }
    }
}

# $null while the server's config has the hash of the enrollment, else the config's text, whose hash fits its bytes.
function Get-NewConfig([double] $End) {
    $peer = ConvertTo-JsonText $Run.enrollment['peer_id']
    $known = [Uri]::EscapeDataString([string] (Get-Value $Run.enrollment 'hash' ''))
    $what = "checking the config of peer $peer"
    foreach ($try in 1, 2) {
        $answer = Invoke-Api $what 'GET' "/config/check?peerId=$peer&hash=$known" $null $End
        if (-not (Test-True $answer['updated'])) { return $null }
        $missing = @('config', 'hash' | Where-Object { $answer[$_] -isnot [string] -or -not $answer[$_] })
        if (-not $missing.Count -and [regex]::IsMatch($answer['config'], '[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]')) {
            $missing = @('a config that is text')
        }
        if ($missing.Count) { throw (New-Failure "$what failed: the answer lacks $($missing -join ', '); look into the server's log" 'protocol' 200) }
        if (Test-Same (Get-Digest $answer['config']) $answer['hash']) { return $answer['config'] }
    }
    throw (New-Failure 'the server''s config does not have the hash it names (twice), so nothing was written; look into the server''s log' 'protocol' 200)
}

# ---------------------------------------------------------------- what runs

function Get-Wg { if ($OnWindows) { Join-Path $env:ProgramFiles 'WireGuard\wg.exe' } else { 'wg' } }

function Get-WireGuard { Join-Path $env:ProgramFiles 'WireGuard\wireguard.exe' }

# A program's lines; throws with its own words, never a key. One that hangs is ended.
function Invoke-Program([string] $Program, [string[]] $Words, [double] $Seconds = 30) {
    $label = [IO.Path]::GetFileName($Program) + ' ' + $Words[0]
    $start = New-Object Diagnostics.ProcessStartInfo($Program)
    $start.Arguments = @($Words | ForEach-Object { '"' + $_ + '"' }) -join ' '
    $start.UseShellExecute = $false
    $start.CreateNoWindow = $true
    $start.RedirectStandardOutput = $true
    $start.RedirectStandardError = $true
    try { $process = [Diagnostics.Process]::Start($start) } catch {
        throw "$label cannot be run: $($_.Exception.GetBaseException().Message); install WireGuard"
    }
    try {
        $out = $process.StandardOutput.ReadToEndAsync()
        $err = $process.StandardError.ReadToEndAsync()
        if (-not $process.WaitForExit([int] (1000 * $Seconds))) {
            $process.Kill()
            throw "$label does not end within $Seconds s"
        }
        $said = $out.Result
        if ($process.ExitCode) {
            $shown = ConvertTo-Shown (($err.Result + ' ' + $said) -replace '[A-Za-z0-9+/]{40,}=*', '(masked)')
            throw "$label failed: $(if ($shown) { $shown } else { "exit status $($process.ExitCode)" })"
        }
        return , @($said.Split("`n") | ForEach-Object { $_.TrimEnd("`r") } | Where-Object { $_ })
    } finally { $process.Dispose() }
}

function Get-ConfigPath { Join-Path (Join-Path $Root 'tunnel') "$($Run.interface).conf" }

function Get-ServiceName { "WireGuardTunnel`$$($Run.interface)" }

function Get-ServiceCommand {
    $key = "HKLM:\SYSTEM\CurrentControlSet\Services\$(Get-ServiceName)"
    $known = Get-ItemProperty -LiteralPath $key -Name ImagePath -ErrorAction SilentlyContinue
    if ($null -eq $known) { return '' }
    return [string] $known.ImagePath
}

# The tunnel's service, $null where there is none.
function Get-TunnelService {
    if (-not $OnWindows) { return $null }
    return Get-Service -Name (Get-ServiceName) -ErrorAction SilentlyContinue
}

# Why the service of this name is somebody else's, $null where it is ours or there is none: it runs another file.
function Get-Stranger {
    if ($null -eq (Get-TunnelService)) { return $null }
    $line = Get-ServiceCommand
    if (-not $line -or $line.IndexOf((Get-ConfigPath), [StringComparison]::OrdinalIgnoreCase) -ge 0) { return $null }
    return "the service $(Get-ServiceName) is another's: it runs $(ConvertTo-Shown $line); give gatecontrol_interface another name, or take that tunnel away"
}

# What a dump of wg says: @{private_key; listen_port; fwmark; peers by public key}. Throws for what is none.
function ConvertFrom-Dump([string[]] $Lines) {
    $garbage = 'wg show dump did not give a dump; look at `wg show` on this host'
    if (-not $Lines -or -not (Test-Match $Lines[0] '[^\t]+\t[^\t]+\t[0-9]{1,5}\t(off|0x[0-9a-f]{1,8})')) { throw $garbage }
    $first = $Lines[0].Split("`t")
    $running = @{ private_key = $first[0]; listen_port = [int] $first[2]; peers = New-Table }
    foreach ($line in @($Lines | Select-Object -Skip 1)) {
        $at = '\(none\)|([0-9.]+|\[[0-9a-f:.]+(%[^\t\]]+)?\]):[0-9]{1,5}'
        if (-not (Test-Match $line "[^\t]+\t[^\t]+\t($at)\t[^\t]+(\t[0-9]{1,15}){3}\t(off|[0-9]{1,5})")) { throw $garbage }
        $words = $line.Split("`t")
        $networks = @(if ($words[3] -cne '(none)') { Get-Distinct @($words[3].Split(',') | ForEach-Object { ConvertTo-Canonical $_ }) })
        $running.peers[$words[0]] = @{
            preshared_key = $words[1]; endpoint = $words[2] -creplace '%[^\]]*', ''; allowed_ips = $networks; handshake = [long] $words[4]
            rx = [long] $words[5]; tx = [long] $words[6]
            keepalive = $(if ($words[7] -ceq 'off') { 0 } else { [int] $words[7] })
        }
    }
    return $running
}

# What wg knows of the interface, $null where there is none. Throws where wg does not answer although the service runs.
function Get-Running {
    if (-not $OnWindows) {
        try { return ConvertFrom-Dump (Invoke-Program (Get-Wg) @('show', $Run.interface, 'dump')) } catch { return $null }
    }
    foreach ($try in 1, 2) {
        $service = Get-TunnelService
        if ($null -eq $service -or [string] $service.Status -ne 'Running' -or $null -ne (Get-Stranger)) { return $null }
        try { return ConvertFrom-Dump (Invoke-Program (Get-Wg) @('show', $Run.interface, 'dump')) } catch {
            if ($try -eq 2) { throw }
            Start-Sleep -Milliseconds 500  # it may have gone while it was looked at
        }
    }
}

function Get-Connection($Running) {
    if ($null -eq $Running) { return @{ status = 'disconnected'; handshake_age = $null; rx_bytes = [long] 0; tx_bytes = [long] 0 } }
    $latest = [long] 0; $received = [long] 0; $sent = [long] 0
    foreach ($peer in $Running.peers.Values) {
        $latest = [Math]::Max($latest, $peer.handshake); $received += $peer.rx; $sent += $peer.tx
    }
    $age = if ($latest -and (Get-Now) - $latest -ge -$ClockStep) { [long] [Math]::Max(0, [Math]::Floor((Get-Now) - $latest)) } else { $null }
    $status = if (-not $Running.peers.Count) { 'error' } elseif ($null -ne $age -and $age -le $HandshakeFresh) { 'connected' } else { 'reconnecting' }
    return @{ status = $status; handshake_age = $age; rx_bytes = $received; tx_bytes = $sent }
}

# ---------------------------------------------------------------- what should run, and the smallest step there

# "+ what is missing, - what is too much", $null for no difference.
function Get-Difference($Wanted, $Present) {
    $missing = [string[]] @($Wanted | Where-Object { -not (Test-Among $_ $Present) })
    $extra = [string[]] @($Present | Where-Object { -not (Test-Among $_ $Wanted) })
    [Array]::Sort($missing, [StringComparer]::Ordinal)
    [Array]::Sort($extra, [StringComparer]::Ordinal)
    $signs = @($missing | ForEach-Object { "+ $_" }) + @($extra | ForEach-Object { "- $_" })
    if ($signs.Count) { return $signs -join ', ' }
    return $null
}

# Why the endpoint should be set again, $null for no reason. One that roamed and works is left alone, and so is a name that resolves to it.
function Get-EndpointReason($Peer, $Live, $Before, [scriptblock] $Resolve) {
    if (-not $Peer.ContainsKey('Endpoint')) { return $null }
    $wanted = $Peer['Endpoint']
    if ($Live.endpoint -ceq '(none)') { return "it has no endpoint, should be $wanted" }
    $reason = "endpoint $($Live.endpoint), should be $wanted"
    if ($null -ne $Before -and (Get-Value $Before 'Endpoint' '') -cne $wanted) { return $reason }
    $name, $port = Split-Endpoint $wanted
    $liveName, $livePort = Split-Endpoint $Live.endpoint
    $literal = Test-Literal $name
    $different = $port -ne $livePort -or ($literal -and $name -cne $liveName)
    $age = (Get-Now) - $Live.handshake
    $stale = $age -ge $HandshakeFresh -or $age -lt -$ClockStep
    if (-not $stale -and ($null -ne $Before -or -not $different)) { return $null }
    if ($null -ne $Resolve -and -not $literal -and -not $different) {
        $answers = @(& $Resolve $name)
        $different = $answers.Count -and $answers -cnotcontains $liveName
    }
    if ($different) { return $reason }
    return $null
}

# The addresses of a name, none where it does not resolve.
function Resolve-Name([string] $Name) {
    try { return @([Net.Dns]::GetHostAddresses($Name) | ForEach-Object { ConvertTo-AddressText $_.GetAddressBytes() }) } catch { return @() }
}

# @{action: none, sync, restart, up; reasons} between what runs and a config. $Applied: the config that was put in place last, or $null: it shows what
# leaves no trace in wg. WireGuard for Windows sets routes when the service starts, so other AllowedIPs and other peers are a restart.
function Get-Plan($Config, $Running, $Applied, [scriptblock] $Resolve = $null) {
    if ($null -eq $Running) { return @{ action = 'up'; reasons = @('the interface is not there') } }
    $restart = @()
    $sync = @()
    $values = $Config.interface
    if ($Running.private_key -cne (Get-ClampedKey $values['PrivateKey'])) { $restart += 'the private key differs' }
    if ($values.ContainsKey('ListenPort') -and [int] $values['ListenPort'] -ne $Running.listen_port) {
        $restart += "ListenPort is $($Running.listen_port), should be $($values['ListenPort'])"
    }
    foreach ($name in @('Address', 'DNS', 'MTU', 'Table') + $Hooks) {
        if ($null -eq $Applied) { continue }
        $before = @(Get-Value $Applied.interface $name @()) -join "`n"
        if (-not (Test-Same (@(Get-Value $values $name @()) -join "`n") $before)) { $restart += "$name changes" }
    }
    $wanted = @($Config.peers | ForEach-Object { $_['PublicKey'] })
    foreach ($peer in $Config.peers) {
        $key = $peer['PublicKey']
        $label = 'peer ' + $key.Substring(0, 8) + [char] 0x2026 + ': '
        $live = $Running.peers[$key]
        if ($null -eq $live) { $restart += $label + 'is missing'; continue }
        if ((Get-Value $peer 'PresharedKey' '(none)') -cne $live.preshared_key) { $sync += $label + 'the preshared key differs' }
        $difference = Get-Difference $peer['AllowedIPs'] $live.allowed_ips
        if ($null -ne $difference) { $restart += $label + 'allowed IPs differ: ' + $difference }
        $keepalive = [int] (Get-Value $peer 'PersistentKeepalive' 0)
        if ($keepalive -ne $live.keepalive) { $sync += $label + "keepalive is $($live.keepalive) s, should be $keepalive s" }
        $before = @(if ($null -ne $Applied) { $Applied.peers | Where-Object { $_['PublicKey'] -ceq $key } })
        $reason = Get-EndpointReason $peer $live $(if ($before.Count) { $before[0] } else { $null }) $Resolve
        if ($null -ne $reason) { $sync += $label + $reason }
    }
    $strange = [string[]] @($Running.peers.Keys | Where-Object { -not (Test-Among $_ $wanted) })
    [Array]::Sort($strange, [StringComparer]::Ordinal)
    foreach ($key in $strange) { $restart += 'peer ' + $key.Substring(0, [Math]::Min(8, $key.Length)) + [char] 0x2026 + ': should not be there' }
    $action = if ($restart.Count) { 'restart' } elseif ($sync.Count) { 'sync' } else { 'none' }
    return @{ action = $action; reasons = @($restart + $sync) }
}

function Get-Applied {
    try { return ConvertFrom-ConfigText ([string] (Read-TextFile (Get-ConfigPath))) $true } catch { return $null }
}

# ---------------------------------------------------------------- services and scheduled tasks (Windows only)

function Stop-Tunnel {
    if ($null -eq (Get-TunnelService)) { return }
    $stranger = Get-Stranger
    if ($null -ne $stranger) { throw $stranger }
    try { [void] (Invoke-Program (Get-WireGuard) @('/uninstalltunnelservice', $Run.interface)) } catch {
        # One that is marked for deletion cannot be taken away twice; it goes with the last handle on it.
        if ($null -ne (Get-TunnelService) -and [string] (Get-TunnelService).Status -ne 'Stopped') { throw }
    }
    if (-not (Wait-Until { $null -eq (Get-TunnelService) } 30)) {
        throw "the service $(Get-ServiceName) does not go away: a program, such as services.msc, holds it open; close it"
    }
}

function Start-Tunnel([double] $Seconds) {
    [void] (Invoke-Program (Get-WireGuard) @('/installtunnelservice', (Get-ConfigPath)))
    $running = Wait-Until { $service = Get-TunnelService; $null -ne $service -and [string] $service.Status -eq 'Running' } $Seconds
    if (-not $running) { throw "the service $(Get-ServiceName) does not run within $([int] $Seconds) s; look into the log of WireGuard" }
    Set-Service -Name (Get-ServiceName) -StartupType Automatic
}

# WireGuard gives up where the name of an endpoint does not resolve, as it may at boot. A service that was disabled stays as it is.
function Start-StoppedTunnel {
    $service = Get-TunnelService
    if ($null -eq $service -or [string] $service.Status -ne 'Stopped' -or [string] $service.StartType -ne 'Automatic' -or $null -ne (Get-Stranger)) { return }
    try {
        Start-Service -Name $service.Name
        [void] (Wait-Until { [string] (Get-TunnelService).Status -eq 'Running' } 10)
    } catch { Write-Debug $_ }
}

function Get-TaskLine([string] $Verb) { "-NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$Agent`" $Verb" }

# The definition of a task of ours as the scheduler takes it: as SYSTEM by its SID, on battery too, never twice at once. $Trigger: its XML.
function Get-TaskDefinition([string] $Verb, [string] $Trigger, [long] $Limit) {
    $program = [Environment]::GetFolderPath('System') + '\WindowsPowerShell\v1.0\powershell.exe'
    $words = [Security.SecurityElement]::Escape((Get-TaskLine $Verb))
    return @(
        '<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">'
        "<RegistrationInfo><Description>GateControl: $Verb</Description></RegistrationInfo>"
        "<Triggers>$Trigger</Triggers>"
        '<Principals><Principal id="Author"><UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel></Principal></Principals>'
        '<Settings><MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy><DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>'
        '<StopIfGoingOnBatteries>false</StopIfGoingOnBatteries><StartWhenAvailable>true</StartWhenAvailable>'
        "<AllowStartOnDemand>true</AllowStartOnDemand><Enabled>true</Enabled><ExecutionTimeLimit>PT${Limit}S</ExecutionTimeLimit></Settings>"
        "<Actions Context=`"Author`"><Exec><Command>$([Security.SecurityElement]::Escape($program))</Command><Arguments>$words</Arguments></Exec></Actions>"
        '</Task>') -join ''
}

# A trigger that repeats for ever. $Begin: a time as XML has it.
function Get-RepeatedTrigger([string] $Begin, [long] $Interval) {
    return "<TimeTrigger><Repetition><Interval>PT${Interval}S</Interval><StopAtDurationEnd>false</StopAtDurationEnd></Repetition>" +
        "<StartBoundary>$Begin</StartBoundary><Enabled>true</Enabled></TimeTrigger>"
}

# What matters of a definition, as one text to compare; the scheduler adds and reorders.
function Get-TaskFacts([string] $Definition, [bool] $Begin) {
    $document = New-Object Xml.XmlDocument
    $document.LoadXml($Definition)
    $names = 'Command', 'Arguments', 'UserId', 'RunLevel', 'MultipleInstancesPolicy', 'DisallowStartIfOnBatteries', 'Interval', 'StartBoundary'
    $facts = foreach ($name in $names) {
        $node = $document.SelectSingleNode("//*[local-name()='$name']")
        $value = if ($null -eq $node) { '' } else { $node.InnerText }
        if ($name -ceq 'Interval' -and $value) { $value = [Xml.XmlConvert]::ToTimeSpan($value).TotalSeconds.ToString($Invariant) }
        if ($name -cne 'StartBoundary' -or $Begin) { $value }
    }
    $disabled = $document.SelectSingleNode("//*[local-name()='Enabled' and text()='false']")
    return (@($facts) + $(if ($null -eq $disabled) { 'enabled' } else { 'disabled' })) -join "`n"
}

# The definition of a registered task of ours, $null where there is none.
function Get-OwnTask([string] $Verb) {
    if (-not $OnWindows -or $null -eq (Get-ScheduledTask -TaskPath $Tasks -TaskName $Verb -ErrorAction SilentlyContinue)) { return $null }
    return [string] (Export-ScheduledTask -TaskPath $Tasks -TaskName $Verb)
}

function Set-OwnTask([string] $Verb, [string] $Definition) {
    [void] (Register-ScheduledTask -TaskPath $Tasks -TaskName $Verb -Xml $Definition -Force)
}

function Remove-OwnTask([string] $Verb) {
    if ($null -eq (Get-OwnTask $Verb)) { return }
    Stop-ScheduledTask -TaskPath $Tasks -TaskName $Verb -ErrorAction SilentlyContinue
    Unregister-ScheduledTask -TaskPath $Tasks -TaskName $Verb -Confirm:$false
}

# The tasks that a play wants: {"verbs": [text], "interval": seconds, "offset": seconds}. Each host beats at an offset of its own within the interval.
function Set-Schedule($Wanted) {
    $changed = @()
    $interval = [long] [Math]::Max(60, (Get-Value $Wanted 'interval' 60))
    $offset = [TimeSpan]::FromSeconds([double] (Get-Value $Wanted 'offset' 0))
    $begin = (New-Object DateTime(2026, 1, 1)).Add($offset).ToString('yyyy-MM-ddTHH:mm:ss', $Invariant)
    $definitions = @{
        apply = Get-TaskDefinition 'apply' '<BootTrigger><Enabled>true</Enabled></BootTrigger>' 900
        beat = Get-TaskDefinition 'beat' (Get-RepeatedTrigger $begin $interval) ($interval + 30)
    }
    foreach ($verb in 'apply', 'beat') {
        $there = Get-OwnTask $verb
        $needed = @($Wanted['verbs']) -ccontains $verb
        if ($needed -and $null -ne $there -and (Get-TaskFacts $there $true) -ceq (Get-TaskFacts $definitions[$verb] $true)) { continue }
        if (-not $needed -and ($null -eq $there -or -not (Test-True $Wanted['only']))) { continue }
        $changed += $verb
        if (-not $Check -and $needed) { Set-OwnTask $verb $definitions[$verb] }
        if (-not $Check -and -not $needed) { Remove-OwnTask $verb }
    }
    return @{ changed = [bool] $changed.Count; names = $changed }
}

# The way back that does not depend on the process that takes the step: from when the change should have ended, each minute until it is undone.
function Register-Restore([double] $Deadline) {
    $at = [DateTime]::UtcNow.AddSeconds([Math]::Max(5, $Deadline - (Get-Clock) + 30)).ToString('yyyy-MM-ddTHH:mm:ssZ', $Invariant)
    Set-OwnTask 'restore' (Get-TaskDefinition 'restore' (Get-RepeatedTrigger $at 60) 900)
}

function Unregister-Restore { if ($OnWindows) { Unregister-ScheduledTask -TaskPath $Tasks -TaskName 'restore' -Confirm:$false -ErrorAction SilentlyContinue } }

# Start the work of the task, and see that it begins: a policy may let no script run. What was armed is taken back if not.
function Start-Apply {
    if (-not $OnWindows) { return }
    $trouble = 'within 30 s it did not begin'
    try {
        Start-ScheduledTask -TaskPath $Tasks -TaskName 'apply'
        if (Wait-Until { $null -eq (Read-StoreTable 'pending')['id'] -or (Read-StoreTable 'pending').ContainsKey('began') } 30) { return }
    } catch { $trouble = $_.Exception.Message }
    Remove-StoreFile 'pending', 'last_good', 'confirm', 'candidate'
    Unregister-Restore
    throw "the scheduled task ${Tasks}apply cannot do its work, so nothing was changed: $trouble; look at its history and at the policies for scripts"
}

# ---------------------------------------------------------------- a change with a way back

function Set-Note([hashtable] $Values) {
    $Run.enrollment = Read-StoreTable 'enrollment'
    foreach ($key in $Values.Keys) { $Run.enrollment[$key] = $Values[$key] }
    Write-StoreTable 'enrollment' $Run.enrollment
}

# Record the config that was proven, if it is the one that was armed and stands in its place.
function Set-Accepted($Change) {
    $file = Get-Digest ([string] (Read-TextFile (Get-ConfigPath)))
    if (-not $Run.enrollment['peer_id'] -or ($Change['candidate'] -is [string] -and $Change['candidate'] -cne $file)) { return }
    Set-Note @{ file_hash = $file; settings = Get-Digest ([string] (Read-StoreText 'settings')) }
    $offered = Read-StoreText 'offered'
    if ($null -ne $offered -and ($null -eq $Change['offered'] -or $Change['offered'] -ceq (Get-Digest $offered))) {
        Write-StoreText 'issued' $offered
        Set-Note @{ hash = Get-Digest $offered }
        Remove-StoreFile 'offered'
    }
}

# Whether a change should have ended by now: its deadline is over, or the host was booted since.
function Test-Overdue($Change, [double] $Grace) {
    $now = Get-Clock
    return $now -gt [double] (Get-Value $Change 'deadline' 0) + $Grace -or $now -lt [double] (Get-Value $Change 'armed' 0)
}

# Whether a change's way back is still to be gone, again.
function Test-Open($Change, $Verdict) { return $Verdict['id'] -cne $Change['id'] -or $Verdict['back'] -eq $false }

# Wait until no change is under way, so that its candidate is not replaced.
function Wait-Idle {
    [void] (Wait-Until { $change = Read-StoreTable 'pending'; -not $change.Count -or (Test-Overdue $change 30) } 120)
}

# Prepare the change to the candidate and its way back; returns its id. Nothing of the tunnel is touched.
function New-Change([string] $ConfirmBy, [double] $Timeout) {
    $candidate = [string] (Read-StoreText 'candidate')
    [void] (ConvertFrom-ConfigText $candidate $true)
    $change = Read-StoreTable 'pending'
    if ($change.Count -and (Test-Open $change (Read-StoreTable 'verdict'))) {
        if (-not (Test-Overdue $change 60)) { throw "another change of $($change['interface']) is under way; try again in a minute" }
        # It was interrupted: its way back is still the way to what worked last.
        $kept = $change
        $change = New-Table
        foreach ($key in 'had_config', 'ran', 'stopped') { if ($kept.ContainsKey($key)) { $change[$key] = $kept[$key] } }
    } else {
        $old = Read-TextFile (Get-ConfigPath)
        $ended = Read-StoreTable 'verdict'
        if ($ended.Count) { Write-StoreTable 'earlier' $ended }  # for a controller that has yet to ask
        Remove-StoreFile 'pending', 'verdict'
        $change = New-Table
        $change['had_config'] = $null -ne $old
        if ($null -ne $old) { Write-StoreText 'last_good' $old }
    }
    Remove-StoreFile 'confirm'
    $now = Get-Clock
    $change['id'] = [Guid]::NewGuid().ToString('N')
    $change['word'] = $null
    $change['interface'] = $Run.interface
    $change['confirm_by'] = $ConfirmBy
    $change['armed'] = $now
    $change['deadline'] = $now + $Timeout
    $change['offered'] = Get-Digest ([string] (Read-StoreText 'offered'))
    $change['candidate'] = Get-Digest $candidate
    if ($OnWindows) { Register-Restore $change['deadline'] }
    Write-StoreTable 'pending' $change
    return $change['id']
}

# Note how a change ended. What leads back stays until the way back was gone.
function Complete-Change($Change, $Verdict) {
    if (-not $Verdict.ContainsKey('ended')) { $Verdict['ended'] = [long] (Get-Now) }
    Write-StoreTable 'verdict' $Verdict
    if ($Verdict['back'] -eq $false) { return $Verdict }
    if ($Verdict['ok']) { Set-Accepted $Change }
    # A play may have stored a newer one while this was applied.
    if ($Change['candidate'] -ceq (Get-Digest ([string] (Read-StoreText 'candidate')))) { Remove-StoreFile 'candidate' }
    Remove-StoreFile 'confirm', 'last_good'
    Remove-StoreFile 'pending'  # last: while it is there, whatever interrupts is recovered from
    Unregister-Restore
    return $Verdict
}

# Have wg take a config without dropping a session. What a peer has not is said to be off: syncconf leaves it otherwise. The live port stays.
function Sync-Tunnel($Config) {
    $live = Get-Running
    if ($null -eq $live) { throw "the interface $($Run.interface) went away" }
    $merged = @{ interface = @{ PrivateKey = $Config.interface['PrivateKey']; ListenPort = $live.listen_port.ToString($Invariant) }; peers = @() }
    foreach ($peer in $Config.peers) {
        $full = @{ PresharedKey = [Convert]::ToBase64String((New-Object byte[] 32)); PersistentKeepalive = 'off' }
        foreach ($name in $peer.Keys) { $full[$name] = $peer[$name] }
        $merged.peers += $full
    }
    $temporary = Join-Path $Root '.gatecontrol.sync.conf'
    try {
        Write-TextFile $temporary (ConvertTo-ConfigText $merged @('PrivateKey', 'ListenPort'))
        [void] (Invoke-Program (Get-Wg) @('syncconf', $Run.interface, $temporary))
    } finally { Remove-TextFile $temporary }
}

# Take the step of a plan. The file is in its place before anything of the tunnel is taken away; $Note is called before that.
function Set-Tunnel($Plan, $Config, [string] $Text, [double] $Seconds, [scriptblock] $Note = $null) {
    if (-not (Test-Same (Read-TextFile (Get-ConfigPath)) $Text)) { Write-TextFile (Get-ConfigPath) $Text }
    if ($Plan.action -ceq 'none') { return }
    if ($null -ne $Note) { & $Note }
    if ($Plan.action -ceq 'sync') { Sync-Tunnel $Config; return }
    Stop-Tunnel
    Start-Tunnel $Seconds
}

# Addresses and ports of datagrams that may draw an answer through the tunnel: its DNS servers, the usual place of a gateway in each network.
function Get-Target($Config) {
    $targets = @(Get-Value $Config.interface 'DNS' @() | Where-Object { Test-Literal $_ } | ForEach-Object { , @($_, 53) })
    $networks = @($Config.peers | ForEach-Object { $_['AllowedIPs'] })
    $near = @($Config.interface['Address'] | ForEach-Object {
            $bytes = (Get-Prefixed $_ $false)[0]
            (ConvertTo-AddressText $bytes) + '/' + (8 * $bytes.Length - 8)
        })
    foreach ($network in $near + $networks) {
        $found = Get-Prefixed $network $true
        $bytes = $found[0]
        if ($found[1] -eq 0) { continue }
        if ($found[1] -lt 8 * $bytes.Length) { $bytes[-1] = $bytes[-1] -bor 1 }
        $targets += , @((ConvertTo-AddressText $bytes), 9)
    }
    return @($targets | Where-Object { Test-Inside $_[0] $networks } | Select-Object -First 20)
}

function Send-Datagram($Targets) {
    foreach ($target in $Targets) {
        try {
            $address = [Net.IPAddress]::Parse($target[0])
            $client = New-Object Net.Sockets.UdpClient($address.AddressFamily)
            try { [void] $client.Send([byte[]] (0), 1, (New-Object Net.IPEndPoint($address, $target[1]))) } finally { $client.Close() }
        } catch { Write-Debug $_ }  # the handshake decides
    }
}

# $null once a peer has answered since the step, else the reason. An answer is a newer handshake or more bytes received; after a change of the endpoint,
# at the new one.
function Get-PeerDisproof($Config, $Before, [double] $Limit) {
    $peers = @($Config.peers | Where-Object { $_.ContainsKey('Endpoint') } | ForEach-Object { $_['PublicKey'] })
    $targets = @(Get-Target $Config)
    $first = $null; $next = 0
    while ($peers.Count) {
        $running = Get-Running
        if ($null -eq $running) { return 'the interface went away' }
        if ($null -eq $first) { $first = $running }
        foreach ($key in $peers) {
            $live = $running.peers[$key]
            $begun = $first.peers[$key]
            $known = if ($null -ne $Before) { $Before.peers[$key] } else { $null }
            if ($null -eq $live -or $null -eq $begun) { continue }
            $settled = $null -eq $known -or $known.endpoint -ceq $begun.endpoint -or $live.endpoint -ceq $begun.endpoint
            $rx = 0; $handshake = 0
            if ($null -ne $known) { $rx = $known.rx; $handshake = $known.handshake }
            if ($settled -and ($live.rx -gt $rx -or $live.handshake -gt $handshake)) { return $null }
        }
        if ((Get-Clock) -gt $Limit) {
            $at = if ($null -ne $running.peers[$peers[0]]) { $running.peers[$peers[0]].endpoint } else { 'no endpoint' }
            return "no answer from the WireGuard peer $($peers[0].Substring(0, 8))" + [char] 0x2026 + " at $at"
        }
        if ((Get-Clock) -ge $next) { $next = (Get-Clock) + 1; Send-Datagram $targets }
        Start-Sleep -Milliseconds 200
    }
    return $null
}

# $null where the server answers this host over what runs now, else the reason. The beat is sent: it is the enrollment's first one.
# A refusal is an answer too: whatever it says of the token or of a rate limit, the way to the server is open.
function Get-ServerDisproof([double] $Deadline) {
    if ($Run.enrollment['reporting'] -cne 'full') { return $null }
    $left = [int] [Math]::Max(2, $Deadline - (Get-Clock) - 1)
    $Run.settings['max_wait'] = $left
    $Run.settings['timeout'] = [Math]::Min($left, (Get-Value $Run.settings 'timeout' 15))
    Set-Memory @{ not_before = 0 }  # a rate limit of before must not stand in for an answer
    $shown = Invoke-Beat $false $false
    if ($null -ne $shown['error'] -and $Unreached -ccontains $shown['error']['kind']) { return $shown['error']['text'] }
    return $null
}

# Take the armed step and prove it; returns the reason why it does not work, or $null.
function Invoke-Step($Change, $Verdict) {
    Start-Sleep -Seconds 2  # the answer to whoever armed this should have left the host
    $begin = Get-Clock
    if (-not $Change.ContainsKey('ran')) { $Change['ran'] = $null -ne (Get-TunnelService) }
    Write-StoreTable 'pending' $Change
    $text = [string] (Read-StoreText 'candidate')
    if ((Get-Digest $text) -cne $Change['candidate']) { return 'the config that was armed is not there any more' }
    $config = ConvertFrom-ConfigText $text $true
    $before = Get-Running
    $plan = Get-Plan $config $before (Get-Applied)
    $Verdict['action'] = $plan.action
    $Verdict['reasons'] = $plan.reasons
    $timeout = $Change['deadline'] - $Change['armed']
    Set-Tunnel $plan $config $text ([Math]::Max(5, $Change['deadline'] - (Get-Clock))) {
        $Change['stopped'] = $true
        Write-StoreTable 'pending' $Change
    }
    $last = $Change['deadline'] - [Math]::Min((Get-Clock) - $begin, $timeout / 4)  # the way back takes as long as the way there
    if ('sync', 'none' -cnotcontains $plan.action) { $before = $null }  # its counters are gone
    $reason = Get-PeerDisproof $config $before ($Change['armed'] + $timeout * 0.6)
    if (-not $reason) { $reason = Get-ServerDisproof $Change['deadline'] }
    if (-not $reason -and $Change['confirm_by'] -ceq 'controller') {
        $Change['word'] = [Guid]::NewGuid().ToString('N')
        Write-StoreTable 'pending' $Change
        while (-not $reason -and ([string] (Read-StoreText 'confirm')).Trim() -cne $Change['word']) {
            if ((Get-Clock) -gt $last) { $reason = "the controller did not come back over a new connection within $([int] $timeout) s" }
            Start-Sleep -Milliseconds 200
        }
    }
    return $reason
}

# The work of the task "apply": take the armed step, prove it, wait for its confirmation, else go back. Returns the verdict, $null where nothing is pending.
function Invoke-Apply {
    return Use-Lock 120 {
        $change = Read-StoreTable 'pending'
        if (-not $change.Count) { return $null }
        if ($change.ContainsKey('began') -or (Test-Overdue $change 0)) { return Restore-Change }
        $change['began'] = $true
        Write-StoreTable 'pending' $change
        $verdict = @{ id = $change['id']; ok = $false; reason = $null; action = $null; reasons = @(); word = $null }
        try { $reason = Invoke-Step $change $verdict } catch { $reason = $_.Exception.Message }
        if ($reason) { Undo-Change $change $verdict $reason } else { $verdict['ok'] = $true }
        $verdict['word'] = $change['word']
        return Complete-Change $change $verdict
    }
}

# Put back what was there before, and say so in the verdict; its "back" is false where that did not succeed, and then it is tried again.
function Undo-Change($Change, $Verdict, [string] $Reason) {
    $Verdict['reason'] = $Reason
    $Verdict['back'] = $true
    if (-not $Change.ContainsKey('ran')) { return }  # nothing was touched yet
    try {
        $text = if ($Change['had_config']) { Read-StoreText 'last_good' } else { $null }
        if ($Change['had_config'] -and $null -eq $text) { $Verdict['reason'] = "$Reason; there was no way back: the last good config is gone"; return }
        if ($null -eq $text) {
            Stop-Tunnel
            Remove-TextFile (Get-ConfigPath)
            return
        }
        $config = ConvertFrom-ConfigText $text $true
        $applied = if ($Change.ContainsKey('stopped')) { Get-Applied } else { $config }
        if ($Change['ran']) {
            $plan = Get-Plan $config (Get-Running) $applied
            Set-Tunnel $plan $config $text 90
        } else {
            Stop-Tunnel
            Write-TextFile (Get-ConfigPath) $text
        }
    } catch {
        $Verdict['back'] = $false
        $Verdict['reason'] = "$Reason; the way back failed too and is tried again each minute: $($_.Exception.Message)"
    }
}

# End a change that was interrupted: its process was killed, the host was rebooted in the middle, or its way back failed.
function Restore-Change {
    return Use-Lock 600 {
        $change = Read-StoreTable 'pending'
        if (-not $change.Count) { Unregister-Restore; return $null }
        $Run.interface = Assert-InterfaceName ([string] (Get-Value $change 'interface' $Run.interface))
        $verdict = Read-StoreTable 'verdict'
        if (-not (Test-Open $change $verdict)) { return Complete-Change $change $verdict }
        $reason = 'the change was interrupted'
        if ($verdict['id'] -ceq $change['id']) { $reason = ([string] $verdict['reason']) -creplace '; the way back failed too.*', '' }
        $verdict = @{ id = $change['id']; word = $change['word']; ok = $false; reason = $null; action = $null; reasons = @() }
        Undo-Change $change $verdict $reason
        return Complete-Change $change $verdict
    }
}

function Remove-Tunnel {
    if ($null -ne (Get-OwnTask 'beat')) {  # what is taken away is not brought back by the last beat
        [void] (Disable-ScheduledTask -TaskPath $Tasks -TaskName 'beat')
        Stop-ScheduledTask -TaskPath $Tasks -TaskName 'beat' -ErrorAction SilentlyContinue
    }
    Use-Lock 180 {  # a change under way ends first
        Unregister-Restore
        Remove-StoreFile 'pending', 'confirm', 'candidate', 'last_good'
        Stop-Tunnel
        Remove-TextFile (Get-ConfigPath)
    }
}

# What a play asks of the tunnel: @{changed; action; reasons; armed (the change's id)}.
function Invoke-ChangeRequest($Wanted) {
    $Run.interface = Assert-InterfaceName ([string] (Get-Value $Wanted 'interface' $Run.interface))
    $stranger = Get-Stranger
    if ($Wanted['state'] -ceq 'absent') {
        $there = ($null -ne (Get-TunnelService) -and $null -eq $stranger) -or [IO.File]::Exists((Get-ConfigPath))
        if ($there -and -not $Check) { Remove-Tunnel }
        return @{ changed = $there; action = $(if ($there) { 'down' } else { 'none' }); reasons = @() }
    }
    if ($null -ne $stranger) { throw "$stranger; nothing was changed" }
    $live = Read-TextFile (Get-ConfigPath)
    $candidate = if ($Check) { $null } else { Wait-Idle; Read-StoreText 'candidate' }
    if ($null -eq $candidate -and -not $Check) { throw "no config of $($Run.interface) is staged, so nothing was changed; run the play again" }
    $text = if ($null -ne $candidate) { $candidate } else { $live }
    if ($null -eq $text) { return @{ changed = $true; action = 'up'; reasons = @('there is no config yet') } }
    $config = ConvertFrom-ConfigText $text $true
    $plan = Get-Plan $config (Get-Running) (Get-Applied) ${function:Resolve-Name}
    $service = Get-TunnelService
    $automatic = $null -ne $service -and [string] $service.StartType -eq 'Automatic'
    $same = Test-Same $text $live
    $result = @{ changed = $plan.action -cne 'none' -or -not $same -or -not $automatic; action = $plan.action; reasons = $plan.reasons }
    if (-not $same) {
        $result['diff'] = @{ before = ConvertTo-MaskedText ([string] $live); after = ConvertTo-MaskedText $text }
        foreach ($side in 'before_header', 'after_header') { $result['diff'][$side] = Get-ConfigPath }
    }
    if ($Check) { return $result }
    Use-Lock 60 {
        if ($plan.action -ceq 'none') {
            Set-Tunnel $plan $config $text 30
            if ($null -ne $service) { Set-Service -Name $service.Name -StartupType Automatic }
            Set-Accepted @{ candidate = Get-Digest $text }
            Remove-StoreFile 'candidate'
        } else { $result['armed'] = New-Change 'controller' ([double] (Get-Value $Wanted 'timeout' 40)) }
    }
    if ($plan.action -cne 'none') { Start-Apply }
    return $result
}

# The controller came back: as confirm of _change.
function Get-Confirmation([string] $Given) {
    $end = (Get-Clock) + 60
    $said = $false
    while ((Get-Clock) -lt $end) {
        $change = Read-StoreTable 'pending'
        foreach ($verdict in (Read-StoreTable 'verdict'), (Read-StoreTable 'earlier')) {
            $ours = $verdict.Count -and ($verdict['id'] -ceq $Given -or $verdict['word'] -ceq $Given)
            if ($ours -and ($verdict['id'] -cne $change['id'] -or $verdict['back'] -eq $false)) { return $verdict }
        }
        if ($change['id'] -cne $Given -and $change['word'] -cne $Given) {
            $reason = 'this host knows nothing of the change any more; look into its event log'
            return @{ id = $Given; ok = $false; action = $null; reasons = @(); reason = $reason }
        }
        if ($change['word'] -and $change['id'] -ceq $Given) { return @{ confirm = $change['word'] } }
        if ($change['word'] -and $change['word'] -ceq $Given) {
            if (-not $said) { Write-StoreText 'confirm' $Given }
            $said = $true
        }
        Start-Sleep -Milliseconds 200
    }
    return $null
}

# ---------------------------------------------------------------- a beat

function Assert-Identity {
    if (-not $Run.enrollment['peer_id']) { throw (New-Failure 'this host is not enrolled; run the play with a secret for it' 'not_enrolled') }
    if ($Run.enrollment['fingerprint'] -cne (Get-MachineFingerprint)) {
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
    if ($Run.enrollment['reporting'] -cne 'full' -or ($now -lt $until -and $until -le $now + $SilentMost)) { return Get-Shown $state $null }
    $link = Get-Connection (Get-Running)
    $connected = $link.status -ceq 'connected'
    $state['connected_since'] = if ($connected) { [Math]::Min((Get-Value $state 'connected_since' $now), $now) } else { $null }
    $state['not_before'] = 0
    $state['last_try'] = $now
    $state['error'] = $null
    # All tries of a beat end before the next beat begins.
    $end = (Get-Clock) + [Math]::Min((Get-Value $Run.settings 'max_wait' 60), [Math]::Max(5, (Get-Value $Run.settings 'heartbeat_interval' 60) - 15))
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
        elseif ($state['reported'] -cne $link.status -and -not $changing) {
            [void] (Invoke-Api "reporting the status of peer $peer" 'POST' '/status' @{
                    peerId = $peer; status = $link.status; timestamp = [DateTime]::UtcNow.ToString("yyyy-MM-dd'T'HH':'mm':'ss.fff'Z'", $Invariant)
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
        if ($kind -ceq 'rate_limited') { $state['not_before'] = $now + [Math]::Min($_.Exception.Data['retry_after'], $SilentMost) }
    }
    $state['requests'] = $Run.requests
    if (-not $AskConfig) { foreach ($key in 'refused', 'last_check') { $state.Remove($key) } }  # the beat beside a change may know better
    Set-Memory $state
    return Get-Shown (Get-Memory) $link
}

# Ask for a new config and start its application, which is a task of its own.
function Update-Config($State, [double] $End, [bool] $AtOnce) {
    $offered = Get-NewConfig $End
    $now = Get-Now
    $State['last_check'] = $now
    if ($null -eq $offered) { $State['refused'] = $null; return }
    $hash = Get-Digest $offered
    $refused = Get-Value $State 'refused' @{}
    $known = $refused['hash'] -ceq $hash
    if ($known -and -not $AtOnce -and $refused['again'] -gt $now -and $refused['again'] - $now -le $RefusedWait[1]) { return }
    $wait = if ($known) { [Math]::Min($refused['wait'] * 2, $RefusedWait[1]) } else { $RefusedWait[0] }
    # Noted before it is tried: a config that is rolled back comes up here again.
    $State['refused'] = @{ hash = $hash; wait = $wait; again = $now + $wait; text = $null }
    try { $text = Get-RenderedConfig $offered (Get-Value $Run.settings 'policy' (New-Table)) } catch {
        $State['refused']['text'] = "the server's config was refused and the tunnel left as it is: $($_.Exception.Message)"
        return
    }
    try {
        $stranger = Get-Stranger
        if ($null -ne $stranger) { throw $stranger }
        Wait-Idle
        Use-Lock 60 {
            Write-StoreText 'offered' $offered
            Write-StoreText 'candidate' $text
            [void] (New-Change 'server' (Get-Value $Run.settings 'confirm_timeout' 40))
        }
        Start-Apply
    } catch { $State['refused']['text'] = "the server's config was not applied and the tunnel left as it is: $($_.Exception.Message)" }
}

# What the scheduled task does: what leads to a tunnel comes before the report.
function Invoke-ScheduledBeat([bool] $AtOnce) {
    Remove-HalfWritten $Root
    Remove-HalfWritten (Join-Path $Root 'tunnel')
    $change = Read-StoreTable 'pending'
    if ($OnWindows -and $change.Count -and (Test-Overdue $change 30)) { [void] (Restore-Change) }
    elseif ($OnWindows -and -not $change.Count -and $Run.enrollment['peer_id']) { Start-StoppedTunnel }
    return Invoke-Beat $true $AtOnce
}

# ---------------------------------------------------------------- what it is like

function Get-Shown($State, $Link) {
    if ($null -eq $State) { $State = Get-Memory }
    if ($null -eq $Link) { $Link = Get-Connection (Get-Running) }
    $shown = @{ enrolled = Test-True $Run.enrollment['peer_id']; version = $Version }
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
        Where-Object { $trusted -cnotcontains $_ } | Select-Object -Unique
    $owner = $acl.GetOwner([Security.Principal.SecurityIdentifier]).Value
    if ($trusted -cnotcontains $owner) { $owner }
}

function Add-Drift($Drift, [string] $Code, [string] $Sentence) {
    [void] $Drift.texts.Add($Sentence)
    [void] $Drift.codes.Add($Code)
}

# A policy that counts whatever -ExecutionPolicy says: the scheduled tasks could never run, and the play would wait for them. One sentence each.
function Get-Obstacle {
    if (-not $OnWindows) { return }
    foreach ($hive in 'HKLM:', 'HKCU:') {
        $key = "$hive\SOFTWARE\Policies\Microsoft\Windows\PowerShell"
        $known = Get-ItemProperty -LiteralPath $key -ErrorAction SilentlyContinue
        if ($null -eq $known) { continue }
        $enabled = if ($null -ne $known.PSObject.Properties['EnableScripts']) { $known.EnableScripts } else { 1 }
        $policy = if ($null -ne $known.PSObject.Properties['ExecutionPolicy']) { [string] $known.ExecutionPolicy } else { '' }
        if ($enabled -eq 0 -or 'AllSigned', 'Restricted' -contains $policy) {
            $name = if ($enabled -eq 0) { 'no scripts' } else { $policy }
            "a group policy ($key) lets PowerShell run $name, so the agent's scheduled tasks cannot work; allow local scripts (RemoteSigned) by policy"
        }
    }
}

function Get-HostFacts([bool] $WireGuard) {
    return @{
        system = 'windows'; distribution = 'windows'; like = @(); version = [Environment]::OSVersion.Version.ToString(); service_manager = 'windows'
        fingerprint = Get-MachineFingerprint; hostname = Get-HostName; resolvectl = $null; needs = @($(if (-not $WireGuard) { 'wireguard' }))
    }
}

# Compare the host with what a play wants; one request to the server, nothing is changed. Shapes and codes as in the agent on Linux.
function Get-Verification($Wanted) {
    if ($null -ne $Wanted['interface']) { [void] (Assert-InterfaceName ([string] $Wanted['interface'])) }
    $drift = @{ texts = New-Object Collections.ArrayList; codes = New-Object Collections.ArrayList }
    $state = Get-Memory
    $running = $null; $trouble = $null
    try { $running = Get-Running } catch { $trouble = $_.Exception.Message }
    $answer = Get-Shown $state (Get-Connection $running)
    $answer['now'] = Get-Now
    $answer['tunnel'] = $null
    $answer['server'] = @{ asked = $false }
    $answer['peer_fields'] = $null
    $answer['proof'] = Get-HostProof $Wanted['challenge']
    $wireguard = -not $OnWindows -or [IO.File]::Exists((Get-WireGuard))
    $answer['host'] = Get-HostFacts $wireguard
    $answer['host']['obstacles'] = @(if ($Wanted['state'] -cne 'absent' -and -not $Run.enrollment['peer_id']) { Get-Obstacle })
    if ($Wanted['state'] -ceq 'absent') { Compare-Rest $drift } else {
        Compare-Enrollment $Wanted $drift
        Compare-File $Wanted $drift
        if ($null -ne $trouble) { Add-Drift $drift 'tunnel' $trouble } else { $answer['tunnel'] = Compare-Tunnel $running $drift }
        if ($OnWindows) { Compare-Service $drift $state }
        if (-not $wireguard) { Add-Drift $drift 'unit_missing' 'WireGuard is not installed' }
        if ((Test-True (Get-Value $Wanted 'check' $true)) -and -not $drift.texts.Count) { $answer['server'] = Get-ServerAnswer $state $drift }
        $answer['peer_fields'] = Compare-Field $Wanted $answer['host']['fingerprint']
        if ($answer['peer_fields'] -eq $false) { Add-Drift $drift 'peer_fields' 'the peer has not been given what the play wants of it on the server' }
    }
    if ($answer['pending']) { Add-Drift $drift 'change_pending' 'a change of the tunnel is under way' }
    $answer['drift'] = @($drift.texts)
    $answer['codes'] = @($drift.codes)
    $answer['in_sync'] = -not $drift.texts.Count
    return $answer
}

# What is left on a host that should have nothing.
function Compare-Rest($Drift) {
    if ([IO.Directory]::Exists($Root)) { Add-Drift $Drift 'left' "$Root is there" }
    if ($null -ne (Get-TunnelService) -and $null -eq (Get-Stranger)) { Add-Drift $Drift 'interface_left' "the interface $($Run.interface) is there" }
    if (-not $OnWindows) { return }
    foreach ($task in @(Get-ScheduledTask -TaskPath $Tasks -ErrorAction SilentlyContinue)) {
        Add-Drift $Drift 'left' "the scheduled task $Tasks$($task.TaskName) is there"
    }
}

# Whether the peer was given what the play wants of it; $null without a wish, for a peer that is ephemeral, another host's or on another server.
function Compare-Field($Wanted, [string] $Fingerprint) {
    $record = $Run.enrollment
    $own = $record['fingerprint'] -ceq $Fingerprint -and (-not $Wanted['url'] -or $Wanted['url'] -ceq $record['url'])
    if (-not $Wanted['fields'] -or -not $own -or $record['fields'] -ceq 'ephemeral') { return $null }
    return $Wanted['fields'] -ceq $record['fields']
}

function Compare-Enrollment($Wanted, $Drift) {
    try { Assert-Identity } catch { Add-Drift $Drift $_.Exception.Data['kind'] $_.Exception.Message; return }
    $record = $Run.enrollment
    if ($Wanted['url'] -and $Wanted['url'] -cne $record['url']) { Add-Drift $Drift 'other_server' "the enrollment is with $($record['url'])" }
    if ($Wanted['interface'] -and $Wanted['interface'] -cne $record['interface']) {
        Add-Drift $Drift 'other_interface' "the enrollment uses the interface $($record['interface'])"
    }
    if ($Wanted['token'] -and $Wanted['token'] -cne $record['token_digest']) { Add-Drift $Drift 'other_token' 'the token given is not the one on the host' }
    if ($record['reporting'] -ceq 'full' -and (Get-Digest $Run.token) -cne $record['token_digest']) {
        Add-Drift $Drift 'token_changed' 'the token file was changed'
    }
    if ($record['settings'] -and $record['settings'] -cne (Get-Digest ([string] (Read-StoreText 'settings')))) {
        Add-Drift $Drift 'settings_unused' 'the settings have not reached the tunnel: an earlier change failed or was undone'
    }
}

function Compare-File($Wanted, $Drift) {
    $settings = Get-Digest ([string] (Read-StoreText 'settings'))
    if ($Wanted['settings'] -and $Wanted['settings'] -cne $settings) { Add-Drift $Drift 'settings_changed' 'the agent''s settings differ' }
    if ([IO.Directory]::Exists($Root) -and @(Get-OtherReader).Count) {
        Add-Drift $Drift 'readable' "$Root can be read by others than SYSTEM and the administrators"
    }
    $files = Get-Value $Wanted 'files' (New-Table)
    foreach ($name in $files.Keys) {
        $path = [Environment]::ExpandEnvironmentVariables($name)
        $text = Read-TextFile $path
        if ($null -eq $text) { Add-Drift $Drift 'file_missing' "$path is missing" }
        elseif ((Get-Digest $text) -cne $files[$name]) { Add-Drift $Drift 'file_changed' "$path differs" }
    }
}

function Compare-Tunnel($Running, $Drift) {
    $path = Get-ConfigPath
    $text = Read-TextFile $path
    if ($null -eq $text) { Add-Drift $Drift 'config_missing' "$path is missing"; return $null }
    if ((Get-Digest $text) -cne $Run.enrollment['file_hash']) { Add-Drift $Drift 'config_changed' "$path was changed"; return $null }
    try {
        $config = ConvertFrom-ConfigText $text $true
        $issued = Read-StoreText 'issued'
        # After a run that was cut off, or whose change was rolled back, settings and file both are as they were written.
        if ($null -ne $issued -and -not (Test-Same (Get-RenderedConfig $issued (Get-Value $Run.settings 'policy' (New-Table))) $text)) {
            Add-Drift $Drift 'config_policy' "$path is not what the local policy makes of the server's config"
        }
    } catch { Add-Drift $Drift 'config_unusable' "${path}: $($_.Exception.Message)"; return $null }
    $plan = Get-Plan $config $Running $config ${function:Resolve-Name}
    foreach ($reason in $plan.reasons) { Add-Drift $Drift 'tunnel' $reason }
    return $plan
}

function Compare-Service($Drift, $State) {
    $service = Get-TunnelService
    $stranger = Get-Stranger
    if ($null -eq $service) { Add-Drift $Drift 'unit_missing' "the service $(Get-ServiceName) is missing" }
    elseif ($null -ne $stranger) { Add-Drift $Drift 'unit_missing' $stranger }
    else {
        if ([string] $service.Status -ne 'Running') { Add-Drift $Drift 'unit_inactive' "the service $($service.Name) is $($service.Status)" }
        if ([string] $service.StartType -ne 'Automatic') { Add-Drift $Drift 'unit_disabled' "the service $($service.Name) does not start at boot" }
    }
    $interval = [long] [Math]::Max(60, (Get-Value $Run.settings 'heartbeat_interval' 60))
    $reports = $Run.enrollment['reporting'] -ceq 'full'
    $verbs = if ($reports) { 'beat', 'apply' } else { , 'apply' }
    foreach ($verb in $verbs) {
        $label = "the scheduled task $Tasks$verb"
        $there = Get-OwnTask $verb
        if ($null -eq $there) { Add-Drift $Drift 'unit_missing' "$label is missing"; continue }
        $trigger = if ($verb -ceq 'beat') { Get-RepeatedTrigger '' $interval } else { '<BootTrigger><Enabled>true</Enabled></BootTrigger>' }
        $right = Get-TaskFacts (Get-TaskDefinition $verb $trigger 0) $false
        $facts = Get-TaskFacts $there $false
        if ($facts.EndsWith('disabled', [StringComparison]::Ordinal)) { Add-Drift $Drift 'unit_disabled' "$label is disabled" }
        elseif ($facts -cne $right) { Add-Drift $Drift 'file_changed' "$label is not as it was made" }
    }
    $silent = (Get-Now) - (Get-Value $State 'last_try' 0)
    $waits = (Get-Value $State 'not_before' 0) -ge (Get-Now)
    if ($reports -and -not $Drift.texts.Count -and $silent -gt 3 * $interval + 30 -and -not $waits) {
        Add-Drift $Drift 'beat_silent' "the agent has not beaten for $([long] $silent) s"
    }
}

# The one request of a steady run: has the server another config?
function Get-ServerAnswer($State, $Drift) {
    if ($Run.enrollment['reporting'] -cne 'full') { return @{ asked = $false; last_check = $State['last_check'] } }
    if ((Get-Value $State 'not_before' 0) -gt (Get-Now)) { return @{ asked = $false; not_before = $State['not_before'] } }
    try { $updated = $null -ne (Get-NewConfig 0) } catch {
        $failure = $_.Exception
        if (-not $failure.Data['kind']) { throw }
        Add-Drift $Drift 'server' "the server: $($failure.Message)"
        return @{ asked = $true; error = @{ kind = $failure.Data['kind']; status = $failure.Data['status']; text = $failure.Message } }
    }
    if ($updated) { Add-Drift $Drift 'config_new' 'the server has a new config' }
    return @{ asked = $true; updated = $updated }
}

# ---------------------------------------------------------------- a play's work on this host

# The folder with the one ACL that matters, which it has from its first moment. One that another account made may hold what that account can still change,
# so it is refused.
function Protect-Root {
    foreach ($sentence in Get-Obstacle) { throw $sentence }
    $there = [IO.Directory]::Exists($Root)
    if ($there -and -not @(Get-OtherReader).Count) { return @{ changed = $false } }
    if ($there -and $OnWindows) {
        $owner = (Get-Acl -LiteralPath $Root).GetOwner([Security.Principal.SecurityIdentifier]).Value
        if ('S-1-5-18', 'S-1-5-32-544' -cnotcontains $owner) {
            throw "$Root belongs to $owner, neither SYSTEM nor the administrators; look into it and remove it"
        }
    }
    if ($Check) { return @{ changed = $true } }
    if (-not $OnWindows) { [void] [IO.Directory]::CreateDirectory($Root); return @{ changed = $true } }
    $acl = New-Object Security.AccessControl.DirectorySecurity
    $acl.SetSecurityDescriptorSddlForm('O:BAG:SYD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
    if ($there) { Set-Acl -LiteralPath $Root -AclObject $acl }
    elseif ($PSVersionTable.PSVersion.Major -lt 6) { [void] [IO.Directory]::CreateDirectory($Root, $acl) }
    else { [void] [IO.FileSystemAclExtensions]::CreateDirectory($acl, $Root) }
    return @{ changed = $true }
}

function Get-FileTexts([string] $TokenFile) {
    $files = @{ config = Read-TextFile (Get-ConfigPath) }
    foreach ($name in 'enrollment', 'token', 'intent', 'issued', 'offered', 'settings') { $files[$name] = Read-StoreText $name }
    $given = if ($TokenFile) { Read-PersonsFile $TokenFile } else { $null }
    if ($TokenFile -and $null -eq $given) { throw "gatecontrol_token_file $TokenFile does not exist; correct the path" }
    return @{ changed = $false; files = $files; token = $given }
}

function Set-FileTexts {
    $parts = foreach ($part in $Texts, $Texts2, $Texts3, $Texts4, $Texts5, $Texts6, $Texts7, $Texts8) {
        if ($null -ne $part) { (New-Object Net.NetworkCredential('', $part)).Password }
    }
    $given = ConvertFrom-JsonText (-join $parts)
    if ($null -eq $given) { throw 'the texts are no JSON object' }
    foreach ($name in $given.Keys) {
        $clear = $null -eq $given[$name] -or $given[$name] -is [string]
        if (-not $clear -or -not $FileNames.ContainsKey($name)) { throw 'the texts are not those of files of this agent' }
    }
    return Use-Lock 180 {
        $names = @($given.Keys | Where-Object { -not (Test-Same (Read-StoreText $_) $given[$_]) })
        if (-not $Check) {
            # The enrollment last: with it the others have to be there.
            foreach ($name in @($names | Where-Object { $_ -cne 'enrollment' }) + @($names | Where-Object { $_ -ceq 'enrollment' })) {
                if ($null -eq $given[$name]) { Remove-StoreFile $name } else { Write-StoreText $name $given[$name] }
            }
        }
        return @{ changed = [bool] $names.Count; names = $names }
    }
}

function Remove-Everything {
    $registered = @(if ($OnWindows) { Get-ScheduledTask -TaskPath $Tasks -ErrorAction SilentlyContinue })
    $there = [IO.Directory]::Exists($Root) -or $registered.Count
    if ($Check -or -not $there) { return @{ changed = [bool] $there } }
    foreach ($task in $registered) { Remove-OwnTask $task.TaskName }
    if ($registered.Count) {
        # The cmdlets leave the empty folder of the scheduler.
        try {
            $scheduler = New-Object -ComObject Schedule.Service
            $scheduler.Connect()
            $scheduler.GetFolder('\').DeleteFolder($Tasks.Trim('\'), 0)
        } catch { Write-Debug $_ }
    }
    if ([IO.Directory]::Exists($Root)) {
        Use-Lock 180 { Write-Debug 'who was at work has ended' }
        Invoke-Patiently { if ([IO.Directory]::Exists($Root)) { [IO.Directory]::Delete($Root, $true) } }
    }
    return @{ changed = $true }
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

# How long ago a time of day was. One that lies in the future is no age: the clock was set back since.
function Get-AgeText($Then) {
    if (-not $Then) { return 'never' }
    $age = (Get-Now) - $Then
    if ($age -lt -$ClockStep) { return 'at a time that this clock has yet to come to' }
    return "$([long] [Math]::Max(0, [Math]::Floor($age))) s ago"
}

function Write-Shown($Shown) {
    if ($Json) { return Write-Output (ConvertTo-JsonText $Shown) }
    if (-not $Shown['enrolled']) { return Write-Output 'not enrolled' }
    Write-Output "peer    $($Shown['peer_name']) (id $($Shown['peer_id'])) on $($Shown['url'])"
    $age = if ($null -eq $Shown['handshake_age']) { 'no handshake yet' } else { "handshake $($Shown['handshake_age']) s ago" }
    Write-Output "tunnel  $($Shown['interface']), $($Shown['status']); $age"
    Write-Output "        received $($Shown['rx_bytes']) bytes, sent $($Shown['tx_bytes']) bytes"
    $beat = if ($Shown['reporting'] -cne 'full') { 'none: this host has no token of its own' }
    else { 'answered ' + (Get-AgeText $Shown['last_beat']) }
    Write-Output "beat    $beat"
    if ($Shown['peer_enabled'] -eq $false) { Write-Output 'server  the administrator has disabled this peer' }
    if ($null -ne $Shown['error']) { Write-Output "error   $($Shown['error']['text'])" }
    if ($null -ne $Shown['verdict'] -and -not $Shown['verdict']['ok']) {
        Write-Output "config  the last change was rolled back: $($Shown['verdict']['reason'])"
    }
}

function ConvertFrom-Word {
    $table = ConvertFrom-JsonText ($Utf8.GetString([Convert]::FromBase64String($Word)))
    if ($null -eq $table) { throw 'what was asked is no JSON object' }
    return $table
}

function Initialize-Run {
    # Windows PowerShell may still offer less than TLS 1.2; 1.3 only where Windows has it.
    if ($PSVersionTable.PSVersion.Major -lt 6) {
        [Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType] 3072
        if ([Environment]::OSVersion.Version.Build -ge 20348) {
            try { [Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType] (3072 -bor 12288) } catch { Write-Debug $_ }
        }
    }
    $Run.settings = Read-StoreTable 'settings'
    $Run.enrollment = Read-StoreTable 'enrollment'
    $Run.interface = Assert-InterfaceName ([string] (Get-Value $Run.enrollment 'interface' (Get-Value $Run.settings 'interface' 'wg0')))
    $Run.token = ([string] (Read-StoreText 'token')).Trim()
}

# Do what was asked; returns the exit status beside what it prints.
function Invoke-Verb {
    switch ($Command) {
        'show' { Write-Shown (Get-Shown $null $null) }
        'verify' { Write-Answer (Get-Verification (ConvertFrom-Word)) }
        'change' { Write-Answer (Invoke-ChangeRequest (ConvertFrom-Word)) }
        'confirm' { Write-Answer (Get-Confirmation $Word) }
        'protect' { Write-Answer (Protect-Root) }
        'schedule' { Write-Answer (Set-Schedule (ConvertFrom-Word)) }
        'read' { Write-Answer (Get-FileTexts $Word) }
        'store' { Write-Answer (Set-FileTexts) }
        'remove' { Write-Answer (Remove-Everything) }
        'checked' { Set-Memory @{ last_check = Get-Now } }
        'restore' { [void] (Restore-Change) }
        'apply' {
            $verdict = Invoke-Apply
            if ($null -ne $verdict -and -not $verdict['ok']) { $Run.status = 1 }
        }
        default {
            $shown = Invoke-ScheduledBeat ($Command -ceq 'sync')
            Write-Shown $shown
            if ($null -ne $shown['error']) { $Run.status = 1 }
        }
    }
}

if ($MyInvocation.InvocationName -ceq '.') { return }  # for tests: only what is defined above
$Run.status = 0
try {
    Initialize-Run
    Invoke-Verb
} catch {
    if (Test-Path -LiteralPath 'variable:Ansible') { throw }
    if ('verify', 'change', 'confirm' -contains $Command) { Write-Answer @{ failed = $true; version = $Version; msg = $_.Exception.Message } }
    else { Write-Output $_.Exception.Message }
    $Run.status = 1
}
if ($PSCommandPath) { exit $Run.status }
