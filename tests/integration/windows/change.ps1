# The agent's changes on a made-up Windows: services, programs and tasks are records; files, locks and everything else are the agent's own.
# change.ps1 FOLDER: one line of JSON for each case, {"name", "ok", "said"}. Run by test_change_ps1.py.
param([Parameter(Mandatory)] [string] $Folder)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
. (Join-Path $PSScriptRoot '../../../roles/gatecontrol/files/gatecontrol_agent.ps1') -Root $Folder
$OnWindows = $true
$Key = [Convert]::ToBase64String([byte[]] (1..32))
$Public = 'HJ/Yj0VgbZMqgMcYJK4VHRXXPnfeOOjgAIUuYU+ucBk='

# ---------------------------------------------------------------- what Windows would do

function Get-TunnelService {
    if ($null -eq $World.status) { return $null }
    return [pscustomobject] @{ Name = Get-ServiceName; Status = $World.status; StartType = $World.start }
}
function Get-Wg { 'wg.exe' }
function Get-WireGuard { 'wireguard.exe' }
function Get-ServiceCommand { return $World.command }
function Get-MachineFingerprint { return 'f' * 64 }
function Get-OtherReader { }
function Send-Datagram { }
function Get-OwnTask([string] $Verb) { return $World.tasks[$Verb] }
function Set-OwnTask([string] $Verb, [string] $Definition) { $World.tasks[$Verb] = $Definition }
function Remove-OwnTask([string] $Verb) { $World.tasks.Remove($Verb) }
function Unregister-Restore { $World.tasks.Remove('restore') }
function Set-Service { param($Name, $StartupType) $World.start = $StartupType }
function Start-Service { param($Name) $World.status = 'Running'; $World.started++ }
function Start-ScheduledTask { param($TaskPath, $TaskName) $World.done += $TaskName; & $World.onstart }
function Stop-ScheduledTask { param($TaskPath, $TaskName, $ErrorAction) $World.done += "stop $TaskName" }
function Disable-ScheduledTask { param($TaskPath, $TaskName) $World.done += "disable $TaskName" }
function Start-Sleep { param([int] $Seconds = 0, [int] $Milliseconds = 0) [Threading.Thread]::Sleep([Math]::Min(20, 1000 * $Seconds + $Milliseconds)) }
$Waited = ${function:Wait-Until}
function Wait-Until([scriptblock] $Probe, [double] $Seconds) { return & $Waited $Probe ([Math]::Min($Seconds, 0.5)) }
function Invoke-Program([string] $Program, [string[]] $Words, [double] $Seconds) {
    switch ($Words[0]) {
        '/installtunnelservice' {
            if ($World.broken) { throw 'wireguard.exe /installtunnelservice failed: no' }
            $World.running = Read-TextFile $Words[1]
            $World.command = "wireguard.exe /tunnelservice $($Words[1])"
            $World.status = 'Running'; $World.start = 'Automatic'
        }
        '/uninstalltunnelservice' { $World.uninstalled++; $World.running = $null; $World.status = if ($World.held) { 'Stopped' } else { $null } }
        'syncconf' { $World.synced++ }
        'show' {
            $config = ConvertFrom-ConfigText $World.running $true
            if ($World.answers) { $World.rx++ }
            $lines = @("$(Get-ClampedKey $config.interface['PrivateKey'])`tx`t51820`toff")
            foreach ($peer in $config.peers) {
                $lines += "$($peer['PublicKey'])`t(none)`t$(Get-Value $peer 'Endpoint' '(none)')`t$($peer['AllowedIPs'] -join ',')`t0`t$($World.rx)`t1`toff"
            }
            return , $lines
        }
    }
}

# ---------------------------------------------------------------- the cases

function Get-Config([string] $Mtu) {
    return "[Interface]`nPrivateKey = $Key`nAddress = 10.8.0.2/32`nMTU = $Mtu`n`n[Peer]`nPublicKey = $Public`nEndpoint = 192.0.2.1:51820`nAllowedIPs = 10.8.0.0/24`n"
}

# A host whose tunnel runs with MTU 1400, unless -Bare.
function Reset-World([switch] $Bare) {
    if ([IO.Directory]::Exists($Folder)) { [IO.Directory]::Delete($Folder, $true) }
    $script:World = @{
        status = $null; start = 'Automatic'; command = ''; running = $null; tasks = @{}; started = 0; uninstalled = 0; synced = 0; held = $false; broken = $false; answers = $true
        rx = 0; done = @(); onstart = {}
    }
    Write-StoreTable 'enrollment' @{ peer_id = 7; peer_name = 'p'; url = 'https://gate.example.com'; interface = 'wg0'; reporting = 'none'; fingerprint = 'f' * 64; hash = 'old' }
    Initialize-Run
    if ($Bare) { return }
    Write-TextFile (Get-ConfigPath) (Get-Config 1400)
    [void] (Invoke-Program 'wireguard' @('/installtunnelservice', (Get-ConfigPath)))
}

function Set-Candidate([string] $Mtu) {
    Write-StoreText 'offered' "offered $Mtu"
    Write-StoreText 'candidate' (Get-Config $Mtu)
}

function Assert([bool] $Clear, [string] $What) { if (-not $Clear) { throw "not so: $What" } }

function Invoke-Case([string] $Name, [scriptblock] $Work) {
    $result = @{ name = $Name; ok = $true; said = '' }
    try { Reset-World; & $Work } catch { $result.ok = $false; $result.said = "$($_.Exception.Message) $($_.ScriptStackTrace)" }
    [Console]::Out.WriteLine((ConvertTo-JsonText $result))
}

function Get-Said([scriptblock] $Work) { try { [void] (& $Work); return '' } catch { return $_.Exception.Message } }

Invoke-Case 'a first tunnel is taken and recorded' {
    Reset-World -Bare
    Set-Candidate 1380
    [void] (New-Change 'server' 10)
    Assert ($World.tasks.ContainsKey('restore')) 'a way back is registered'
    $verdict = Invoke-Apply
    Assert $verdict['ok'] $verdict['reason']
    $record = Read-StoreTable 'enrollment'
    Assert ($World.running.Contains('1380') -and $record['file_hash'] -ceq (Get-Digest (Get-Config 1380)) -and $record['hash'] -ceq (Get-Digest 'offered 1380')) 'it is recorded'
    Assert (-not (Read-StoreTable 'pending').Count -and -not $World.tasks.ContainsKey('restore') -and $null -eq (Read-StoreText 'candidate')) 'nothing is left'
}
Invoke-Case 'a dead peer is undone' {
    Set-Candidate 1380
    $World.answers = $false
    [void] (New-Change 'server' 10)
    $verdict = Invoke-Apply
    Assert (-not $verdict['ok'] -and $verdict['reason'].Contains('no answer from the WireGuard peer')) 'it is said'
    Assert ($World.running -ceq (Get-Config 1400) -and (Read-TextFile (Get-ConfigPath)) -ceq (Get-Config 1400)) 'the old one runs'
    Assert ($null -eq (Read-StoreTable 'enrollment')['file_hash']) 'nothing was accepted'
}
Invoke-Case 'a service that does not go away is tried until it does' {
    Set-Candidate 1380
    $World.held = $true
    [void] (New-Change 'server' 10)
    $verdict = Invoke-Apply
    Assert ($verdict['back'] -eq $false -and $verdict['reason'].Contains('the way back failed too')) 'it is said'
    Assert ((Read-StoreTable 'pending').Count -and (Read-StoreText 'last_good') -ceq (Get-Config 1400) -and $World.tasks.ContainsKey('restore')) 'the way back is kept'
    Assert ((Get-Confirmation $verdict['id'])['ok'] -eq $false) 'the controller hears of it'
    $again = Restore-Change
    Assert ($again['back'] -eq $false -and (Read-StoreTable 'pending').Count) 'held still'
    $World.held = $false; $World.status = $null  # services.msc is closed
    $last = Restore-Change
    Assert ($last['back'] -and $World.running -ceq (Get-Config 1400) -and -not (Read-StoreTable 'pending').Count) 'the tunnel is back'
}
Invoke-Case 'an installation that fails brings the old one back' {
    Set-Candidate 1380
    [void] (New-Change 'server' 10)
    $World.broken = $true
    $verdict = Invoke-Apply
    Assert ($verdict['back'] -eq $false) 'the way back needs it too'
    $World.broken = $false
    Assert ((Restore-Change)['back'] -and $World.running -ceq (Get-Config 1400)) 'back'
}
Invoke-Case 'nothing is taken away before the file is in its place' {
    Set-Candidate 1380
    [void] (New-Change 'server' 10)
    $original = ${function:Write-TextFile}
    function Write-TextFile([string] $Path, [string] $Text) {
        if ($Path.EndsWith('wg0.conf') -and $Text.Contains('1380')) { throw (New-Object IO.IOException('The process cannot access the file')) }
        & $original $Path $Text
    }
    $verdict = Invoke-Apply
    Assert (-not $verdict['ok'] -and $verdict['back'] -and $World.uninstalled -eq 0 -and $World.running -ceq (Get-Config 1400)) 'the tunnel was not touched'
}
Invoke-Case 'another person''s service is refused' {
    Set-Candidate 1380
    $World.command = 'wireguard.exe /tunnelservice "C:\Users\x\wg0.conf"'
    $said = Get-Said { Invoke-ChangeRequest @{ state = 'up'; interface = 'wg0' } }
    Assert ($said.Contains('is another''s') -and $World.uninstalled -eq 0 -and -not (Read-StoreTable 'pending').Count) $said
    Remove-TextFile (Get-ConfigPath)
    Assert (-not (Invoke-ChangeRequest @{ state = 'absent'; interface = 'wg0' })['changed'] -and $World.uninstalled -eq 0) 'nor is it taken away'
}
Invoke-Case 'a change without a candidate is an error' {
    $said = Get-Said { Invoke-ChangeRequest @{ state = 'up'; interface = 'wg0' } }
    Assert ($said.Contains('no config of wg0 is staged')) $said
}
Invoke-Case 'a name that leads out of the folder is an error' {
    foreach ($name in '..\..\evil', 'CON', 'com1.x', 'a.', '', 'sixteen-letters-', "wg0`n", ('w' + [char] 0xad + 'g')) {
        $said = Get-Said { Invoke-ChangeRequest @{ state = 'up'; interface = $name } }
        Assert ($said.Contains('none that WireGuard takes')) "$name $said"
    }
}
Invoke-Case 'what a second play stores is not the first one''s' {
    Set-Candidate 1380
    [void] (New-Change 'controller' 10)
    $shot = [pscustomobject] @{ done = $false }
    $original = ${function:Read-StoreText}
    function Read-StoreText([string] $Name) {
        if ($Name -cne 'confirm') { return & $original $Name }
        $change = Read-StoreTable 'pending'
        if ($change['word'] -and -not $shot.done) {
            $shot.done = $true
            Set-Candidate 1300
            Write-StoreText 'confirm' $change['word']
        }
        & $original $Name
    }
    $verdict = Invoke-Apply
    $record = Read-StoreTable 'enrollment'
    Assert ($verdict['ok'] -and $record['file_hash'] -ceq (Get-Digest (Get-Config 1380)) -and $record['hash'] -ceq 'old') "the first is recorded: $($verdict['reason'])"
    Assert ((& $original 'candidate') -ceq (Get-Config 1300) -and (& $original 'offered') -ceq 'offered 1300') 'the second waits'
}
Invoke-Case 'a config that does not run is not accepted' {
    Write-StoreText 'offered' 'offered'
    Set-Accepted @{ candidate = Get-Digest 'another'; offered = Get-Digest 'offered' }
    Assert ($null -eq (Read-StoreTable 'enrollment')['file_hash'] -and (Read-StoreTable 'enrollment')['hash'] -ceq 'old') 'it is as it was'
}
Invoke-Case 'what is taken away stays away' {
    Set-Candidate 1380
    [void] (New-Change 'controller' 10)
    $change = Read-StoreTable 'pending'
    $change['ran'] = $true; $change['began'] = $true
    Write-StoreTable 'pending' $change
    $World.tasks['beat'] = 'x'
    $done = Invoke-ChangeRequest @{ state = 'absent'; interface = 'wg0' }
    Assert ($done['changed'] -and $null -eq $World.status) 'it is gone'
    Assert ($World.done[0] -ceq 'disable beat' -and $World.done[1] -ceq 'stop beat') 'the beat first'
    Assert ($null -eq (Restore-Change) -and $null -eq $World.status) 'no way back brings it'
}
Invoke-Case 'a service that gave up is started by the beat' {
    $World.status = 'Stopped'
    [void] (Invoke-ScheduledBeat $false)
    Assert ($World.started -eq 1) 'started'
    $World.status = 'Stopped'; $World.start = 'Disabled'
    [void] (Invoke-ScheduledBeat $false)
    Assert ($World.started -eq 1) 'what an administrator disabled stays'
}
Invoke-Case 'a change whose process was killed is ended by the beat' {
    Set-Candidate 1380
    [void] (New-Change 'controller' 10)
    $change = Read-StoreTable 'pending'
    $change['ran'] = $true; $change['stopped'] = $true; $change['deadline'] = (Get-Clock) - 60
    Write-StoreTable 'pending' $change
    Stop-Tunnel
    Write-TextFile (Get-ConfigPath) (Get-Config 1380)
    [void] (Invoke-ScheduledBeat $false)
    Assert ($World.running -ceq (Get-Config 1400) -and -not (Read-StoreTable 'pending').Count) 'the old one runs'
}
Invoke-Case 'a task that does not begin takes back what was armed' {
    Set-Candidate 1380
    $said = Get-Said { Invoke-ChangeRequest @{ state = 'up'; interface = 'wg0' } }
    Assert ($said.Contains('cannot do its work') -and -not (Read-StoreTable 'pending').Count -and $World.running -ceq (Get-Config 1400)) $said
}
Invoke-Case 'a rate limit of before is no proof' {
    $Run.enrollment['reporting'] = 'full'
    Write-StoreTable 'state' @{ not_before = (Get-Now) + 500 }
    $asked = [pscustomobject] @{ count = 0 }
    function Invoke-Api { $asked.count++; throw (New-Failure 'no answer' 'network') }
    $reason = Get-ServerDisproof ((Get-Clock) + 3)
    Assert ($asked.count -eq 1 -and $reason -ceq 'no answer') "asked $($asked.count) times: $reason"
}
Invoke-Case 'a limit that the server answers with is proof of the way' {
    $Run.enrollment['reporting'] = 'full'
    function Invoke-Api { throw (New-Failure 'slow down' 'rate_limited' 429 5) }
    Assert ($null -eq (Get-ServerDisproof ((Get-Clock) + 3))) 'an answer'
    function Invoke-Api { throw (New-Failure 'a proxy' 'protocol' 200) }
    Assert ((Get-ServerDisproof ((Get-Clock) + 3)) -ceq 'a proxy') 'no answer of the server'
}
Invoke-Case 'one at a time' {
    $held = New-Object IO.FileStream((Join-Path $Root 'lock'), [IO.FileMode]::OpenOrCreate, [IO.FileAccess]::ReadWrite, [IO.FileShare]::None)
    try { $said = Get-Said { Use-Lock 0.2 { 'x' } } } finally { $held.Dispose() }
    Assert ($said.Contains('another run of the agent')) $said
    Assert ((Use-Lock 1 { Use-Lock 1 { 'inner' } }) -ceq 'inner') 'whoever holds it may take it again'
}
Invoke-Case 'what a killed writer leaves is removed' {
    $left = Join-Path $Root '.gatecontrol.token.x'
    [IO.File]::WriteAllText($left, 'secret')
    [IO.File]::SetLastWriteTimeUtc($left, [DateTime]::UtcNow.AddSeconds(-100))
    [void] (Invoke-ScheduledBeat $false)
    Assert (-not [IO.File]::Exists($left)) 'gone'
}
Invoke-Case 'a token file that a person wrote is read' {
    foreach ($encoding in (New-Object Text.UTF8Encoding($true)), (New-Object Text.UnicodeEncoding($false, $true)), (New-Object Text.UTF8Encoding($false))) {
        $path = Join-Path $Root 'given'
        [IO.File]::WriteAllText($path, "gc_abc`r`n", $encoding)
        Assert ((Get-FileTexts $path)['token'] -ceq 'gc_abc') $encoding.WebName
    }
}
Invoke-Case 'tasks are registered once, and another definition is seen' {
    $wanted = @{ verbs = @('apply', 'beat'); interval = 300; offset = 7; only = $true }
    Assert ((Set-Schedule $wanted)['names'] -join ',' -ceq 'apply,beat') 'made'
    Assert (-not (Set-Schedule $wanted)['changed']) 'once'
    Assert ($World.tasks['beat'].Contains('S-1-5-18') -and $World.tasks['beat'].Contains('2026-01-01T00:00:07')) 'as SYSTEM, at its own time'
    foreach ($edit in @('PT300S', 'PT60S'), @('<Enabled>true</Enabled><ExecutionTimeLimit>', '<Enabled>false</Enabled><ExecutionTimeLimit>'), @('S-1-5-18', 'S-1-5-19'), @(' beat<', ' show<')) {
        $World.tasks['beat'] = $World.tasks['beat'].Replace($edit[0], $edit[1])
        Assert ((Set-Schedule $wanted)['names'] -join ',' -ceq 'beat') $edit[0]
    }
    Assert ((Set-Schedule @{ verbs = @('apply'); only = $true })['names'] -join ',' -ceq 'beat' -and -not $World.tasks.ContainsKey('beat')) 'taken away'
}
Invoke-Case 'the tasks run as SYSTEM, on battery too, caught up when missed, never twice at once' {
    [void] (Set-Schedule @{ verbs = @('apply', 'beat'); interval = 90; offset = 61; only = $true })
    $beat = [xml] $World.tasks['beat']
    $settings = $beat.Task.Settings
    Assert ($beat.Task.Principals.Principal.UserId -ceq 'S-1-5-18' -and $beat.Task.Principals.Principal.RunLevel -ceq 'HighestAvailable') 'SYSTEM'
    Assert ($settings.DisallowStartIfOnBatteries -ceq 'false' -and $settings.StopIfGoingOnBatteries -ceq 'false') 'battery'
    Assert ($settings.StartWhenAvailable -ceq 'true' -and $settings.MultipleInstancesPolicy -ceq 'IgnoreNew' -and $settings.ExecutionTimeLimit -ceq 'PT120S') 'once'
    $trigger = $beat.Task.Triggers.TimeTrigger
    Assert ($trigger.Repetition.Interval -ceq 'PT90S' -and $trigger.StartBoundary -ceq '2026-01-01T00:01:01') 'each 90 s'
    Assert ($beat.Task.Actions.Exec.Arguments.EndsWith("-File `"$Agent`" beat")) $beat.Task.Actions.Exec.Arguments
    Assert (([xml] $World.tasks['apply']).Task.Triggers.BootTrigger.Enabled -ceq 'true') 'at boot'
}
Invoke-Case 'an age is never negative, whatever the clock did' {
    $Run.enrollment['reporting'] = 'full'
    function Get-Now { 1800000000.0 }
    foreach ($row in @(-5, '5 s ago'), @(30, '0 s ago'), @(4000, 'at a time that this clock has yet to come to')) {
        Write-StoreTable 'state' @{ last_beat = (Get-Now) + $row[0] }
        $said = [string] (@(Write-Shown (Get-Shown $null $null)) -cmatch '^beat')
        Assert ($said -ceq "beat    answered $($row[1])") "$($row[0]) $said"
    }
}
Invoke-Case 'the language of the machine changes nothing' {
    foreach ($culture in 'tr-TR', 'th-TH', 'fa-IR', 'de-DE', 'ar-SA', 'hu-HU') {
        [Globalization.CultureInfo]::CurrentCulture = New-Object Globalization.CultureInfo($culture)
        $said = ConvertTo-JsonText @{ a = 1.5; b = @(1, 'I'); c = [DateTime]::UtcNow.ToString("yyyy", $Invariant) }
        Assert ($said -ceq "{`"a`":1.5,`"b`":[1,`"I`"],`"c`":`"$([DateTime]::UtcNow.Year)`"}") "$culture $said"
        Assert ((ConvertTo-ConfigText (ConvertFrom-ConfigText (Get-Config 1400).ToUpperInvariant().Replace($Key.ToUpperInvariant(), $Key).Replace($Public.ToUpperInvariant(), $Public) $false) `
                    ($Keys['interface'] + $Hooks)) -ceq (Get-Config 1400)) $culture
        Assert ((Get-ServerFailure 'x' 403 '{"error": "DIFFERENT MACHINE, FINGERPRINT"}' @{}).Data['kind'] -ceq 'machine_binding') $culture
        Register-Restore ((Get-Clock) + 10)
        Assert ($World.tasks['restore'].Contains("<StartBoundary>$([DateTime]::UtcNow.Year)")) $culture
    }
}
