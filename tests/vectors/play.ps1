# Plays vectors through the agent of Windows: see play. Reads lines of JSON from standard input.
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
. (Join-Path $PSScriptRoot '../../roles/gatecontrol/files/gatecontrol_agent.ps1') -Root (Join-Path ([IO.Path]::GetTempPath()) 'gatecontrol-vectors')

function Get-Now { 1800000000.0 }

function Get-PlayedText($Arguments) {
    $text = $Arguments['text']
    if ([regex]::IsMatch($text, '[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]')) { throw 'played:text' }
    return $text
}

function Get-PlayedRunning($Dump) {
    if ($null -eq $Dump) { return $null }
    $lines = @($(if ($Dump -is [string]) { $Dump.Split("`n") } else { $Dump }) | Where-Object { $_ } | ForEach-Object {
            [regex]::Replace($_, 'NOW-([0-9]+)', { param($found) (1800000000 - [long] $found.Groups[1].Value).ToString($Invariant) })
        })
    try { return ConvertFrom-Dump $lines } catch { throw 'played:dump' }
}

function Get-PlayedFailure($Arguments) {
    $headers = New-Object Collections.Hashtable([StringComparer]::OrdinalIgnoreCase)
    if ($null -ne $Arguments['headers']) { foreach ($name in $Arguments['headers'].Keys) { $headers[$name] = $Arguments['headers'][$name] } }
    if ($Arguments['status'] -lt 300) {
        $body = ConvertFrom-JsonText $Arguments['text']
        $whole = $null -ne $body -and $body['ok'] -is [bool] -and $body['ok']
        return @{ kind = $(if ($whole) { $null } else { 'protocol' }); retry_after = $null }
    }
    $failure = Get-ServerFailure 'asking the server' ([int] $Arguments['status']) $Arguments['text'] $headers
    return @{ kind = $failure.Data['kind']; retry_after = $failure.Data['retry_after'] }
}

# The value is put into $Result, since a pipeline would take lists apart.
function Invoke-Vector([string] $Op, $Arguments, $Result) {
    switch -CaseSensitive ($Op) {
        'parse' {
            $config = ConvertFrom-ConfigText $Arguments['text'] (Test-True $Arguments['hooks'])
            $Result.ok = ConvertTo-ConfigText $config ($Keys['interface'] + $Hooks)
        }
        'render' { $Result.ok = Get-RenderedConfig $Arguments['text'] $(if ($null -ne $Arguments['policy']) { $Arguments['policy'] } else { New-Table }) }
        'plan' {
            $applied = if ($Arguments['applied']) { ConvertFrom-ConfigText $Arguments['applied'] $true } else { $null }
            $config = ConvertFrom-ConfigText $Arguments['text'] $true
            $Result.ok = Get-Plan $config (Get-PlayedRunning $Arguments['dump']) $applied
        }
        'connection' { $Result.ok = Get-Connection (Get-PlayedRunning $Arguments['dump']) }
        'json' { try { $Result.ok = ConvertFrom-Json8259 $Arguments['text'] } catch [FormatException] { throw 'played:json' } }
        'digest' { $Result.ok = Get-Digest (Get-PlayedText $Arguments) }
        'mask' { $Result.ok = ConvertTo-MaskedText (Get-PlayedText $Arguments) }
        'clamp' { if (-not (Test-Match $Arguments['key'] '[A-Za-z0-9+/]{43}=')) { throw 'played:key' }; $Result.ok = Get-ClampedKey $Arguments['key'] }
        'failure' { $Result.ok = Get-PlayedFailure $Arguments }
        'excluded' { $Result.ok = Test-Excluded $Arguments['host'] ([int] $Arguments['port']) $Arguments['no_proxy'] }
        'proof' { $Result.ok = Get-Proof $Arguments['private_key'] $Arguments['challenge'] }
        default { throw "there is no op $Op" }
    }
}

$reader = New-Object IO.StreamReader([Console]::OpenStandardInput(), (New-Object Text.UTF8Encoding($false)))
$writer = New-Object IO.StreamWriter([Console]::OpenStandardOutput(), (New-Object Text.UTF8Encoding($false)))
$writer.NewLine = "`n"
while ($null -ne ($line = $reader.ReadLine())) {
    if (-not $line.Trim()) { continue }
    $vector = ConvertFrom-Json8259 $line
    $result = New-Table
    try { Invoke-Vector $vector['op'] $vector['args'] $result } catch {
        $said = $_.Exception
        $result.Remove('ok')
        if ($said.Data.Contains('refused')) { $result['error'] = $said.Data['refused'] + $(if ($said.Data['line']) { ":$($said.Data['line'])" } else { '' }) }
        elseif ($said.Message.StartsWith('played:', [StringComparison]::Ordinal)) { $result['error'] = $said.Message.Substring(7) }
        else {
            $result['error'] = 'args'
            [Console]::Error.WriteLine("$($said.Message) $($_.ScriptStackTrace)")
        }
    }
    $result['id'] = $vector['id']
    $writer.WriteLine((ConvertTo-JsonText $result))
}
$writer.Flush()
