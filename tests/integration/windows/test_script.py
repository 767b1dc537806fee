"""Every .ps1 is what Windows PowerShell 5.1 can read: parsed with a grammar of PowerShell, since PowerShell itself may not be here."""
from __future__ import annotations

import pathlib
import re

import pytest
import tree_sitter
import tree_sitter_powershell

CHECKOUT = pathlib.Path(__file__).parents[3]
SCRIPTS = sorted((CHECKOUT / "roles").rglob("*.ps1"))
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
# https://learn.microsoft.com/powershell/scripting/developer/cmdlet/approved-verbs-for-windows-powershell-commands
VERBS = set("""
Add Approve Assert Backup Block Build Checkpoint Clear Close Compare Complete Compress Confirm Connect Convert ConvertFrom ConvertTo Copy Debug Deny
Deploy Disable Disconnect Dismount Edit Enable Enter Exit Expand Export Find Format Get Grant Group Hide Import Initialize Install Invoke Join Limit
Lock Measure Merge Mount Move New Open Optimize Out Ping Pop Protect Publish Push Read Receive Redo Register Remove Rename Repair Request Reset Resize
Resolve Restart Restore Resume Revoke Save Search Select Send Set Show Skip Split Start Step Stop Submit Suspend Switch Sync Test Trace Unblock Undo
Uninstall Unlock Unprotect Unpublish Unregister Update Use Wait Watch Write""".split())


def parsed(text):
    return PARSER.parse(text.encode()).root_node


def nodes(root, kind):
    """All nodes of a kind below root."""
    found = [root] * (root.type == kind)
    for child in root.children:
        found += nodes(child, kind)
    return found


def words(node):
    return node.text.decode()


def newer(root):
    """What PowerShell 7 knows and 5.1 does not, beside what the grammar refuses anyway."""
    chains = [words(node) for node in nodes(root, "pipeline_chain_tail")]
    given = [words(node) for node in nodes(root, "command_parameter")]
    return chains + [name for name in given if re.fullmatch("-(Parallel|AsHashtable|SkipCertificateCheck)", name, re.I)]


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.name)
def script(request):
    return request.param.read_text(encoding="ascii")  # 5.1 reads a file without a mark in the machine's own code page


def test_there_is_one():
    assert [path.name for path in SCRIPTS] == ["gatecontrol_agent.ps1"]


@pytest.mark.parametrize("text", ["$a = $b ? 1 : 2\n", "$a ?? 2\n", "$a ??= 2\n", "a && b\n", "a || b\n", "$a?.b\n", "$x = {\n",
                                  "1 | ForEach-Object -Parallel { $_ }\n"])
def test_the_parser_sees_what_5_1_does_not_know(text):
    root = parsed(text)
    assert root.has_error or newer(root)


def test_it_has_no_syntax_errors_and_nothing_newer(script):
    root = parsed(script)
    assert [node.start_point for node in nodes(root, "ERROR")] == [] and not root.has_error
    assert newer(root) == []
    assert all(len(line) <= 160 for line in script.splitlines()) and "\r" not in script and script.endswith("\n")


def test_it_is_strict(script):
    assert re.search(r"^Set-StrictMode -Version Latest$", script, re.MULTILINE) and re.search(r"^\$ErrorActionPreference = 'Stop'$", script, re.MULTILINE)


def test_its_functions_have_approved_verbs_and_are_used(script):
    names = [words(node) for node in nodes(parsed(script), "function_name")]
    assert len(names) > 50 and len(set(names)) == len(names)
    assert {name.partition("-")[0] for name in names} <= VERBS
    for name in names:
        assert len(re.findall(r"(?<![\w-])%s(?![\w-])" % re.escape(name), script)) > 1, name


def test_no_typed_parameter_is_written_to(script):
    """$Low and $low are one variable: a text put into a number's parameter is an error that only a run shows."""
    for function in nodes(parsed(script), "function_statement"):
        typed = {name.lower() for name in re.findall(r"\[\w+(?:\[\])?\] \$(\w+)", words(function).split("{")[0])}
        written = {name.lower() for name in re.findall(r"(?m)(?:^|[{;(]) *\$(\w+) [-+]?= ", words(function))}
        assert not typed & written, words(function).split("{")[0]


def test_every_command_is_its_own_or_one_of_windows(script):
    """A misspelt name is an error that only a run shows."""
    known = set("""Disable-ScheduledTask Export-ScheduledTask ForEach-Object Get-Acl Get-ItemProperty Get-Random Get-ScheduledTask Get-Service Join-Path
        New-Object Register-ScheduledTask Select-Object Set-Acl Set-Service Set-StrictMode Start-ScheduledTask Start-Service Start-Sleep
        Stop-ScheduledTask Test-Path Unregister-ScheduledTask Where-Object Write-Debug Write-Output""".split())
    root = parsed(script)
    own = {words(node) for node in nodes(root, "function_name")}
    used = {words(node) for node in nodes(root, "command_name")}
    assert {name for name in used if "-" in name} <= own | known


def test_it_logs_no_secret(script):
    assert not re.search(r"Write-EventLog|New-WinEvent|Start-Transcript|Out-File|Write-Verbose|Write-Host", script)
