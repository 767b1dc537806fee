"""The texts the server translates: key, English, German. What is not here is answered as the bare key."""
from __future__ import annotations

_TABLE = """
peers.name_invalid|Peer name must be alphanumeric (1-63 chars)|Peer-Name muss alphanumerisch sein (1-63 Zeichen)
peers.description_invalid|Description too long (max 255 chars)|Beschreibung zu lang (max. 255 Zeichen)
peers.create|Failed to create peer|Peer konnte nicht erstellt werden
peers.update|Failed to update peer|Peer konnte nicht aktualisiert werden
peers.not_found|Peer not found|Peer nicht gefunden
peers.name_exists|A peer with this name already exists|Ein Peer mit diesem Namen existiert bereits
peers.no_ips|No available IP addresses in subnet|Keine verfügbaren IP-Adressen im Subnetz
peers.owner_invalid|Selected owner does not exist|Ausgewählter Besitzer existiert nicht
peers.bulk_invalid_ids|Invalid or too many peer IDs|Ungültige oder zu viele Geräte-IDs
client.hostname_required|Hostname is required|Hostname ist erforderlich
client.invalid_hostname|Invalid hostname for peer name|Ungültiger Hostname für Peer-Name
client.register_failed|Client registration failed|Client-Registrierung fehlgeschlagen
client.peer_id_required|Peer ID is required|Peer-ID ist erforderlich
client.fingerprint_required|Machine fingerprint required|Maschinen-Fingerprint erforderlich
client.fingerprint_invalid|Invalid machine fingerprint format|Ungültiges Fingerprint-Format
client.binding_mismatch|Token is bound to a different machine|Token ist an eine andere Maschine gebunden
dns.hostname_required|Hostname is required|Hostname ist erforderlich
dns.hostname_invalid|Hostname contains invalid characters (only a-z, 0-9, hyphen; max 63 chars)\
|Hostname enthält ungültige Zeichen (nur a-z, 0-9, Bindestrich; max. 63 Zeichen)
dns.hostname_reserved|Hostname is reserved and cannot be used|Hostname ist reserviert und kann nicht verwendet werden
settings.machine_binding_mode_invalid|Mode must be off, global or individual|Modus muss aus, global oder individuell sein
batch.invalid_action|Invalid batch action|Ungültige Batch-Aktion
batch.no_ids|No items selected|Keine Elemente ausgewählt
batch.not_found|Some items were not found|Einige Elemente wurden nicht gefunden
peer_groups.not_found|Peer group not found|Peer-Gruppe nicht gefunden
peer_groups.name_required|Group name is required|Gruppenname ist erforderlich
peer_groups.name_exists|A group with this name already exists|Eine Gruppe mit diesem Namen existiert bereits
tokens.not_found|Token not found|Token nicht gefunden
tokens.name_required|Token name is required|Token-Name ist erforderlich
tokens.scopes_required|At least one scope is required|Mindestens eine Berechtigung ist erforderlich
tokens.no_escalation|Tokens cannot manage other tokens|Tokens können keine anderen Tokens verwalten
users.create|Failed to create user|Benutzer konnte nicht erstellt werden
users.update|Failed to update user|Benutzer konnte nicht aktualisiert werden
users.not_found|User not found|Benutzer nicht gefunden
users.self_delete|You cannot delete your own account|Sie können Ihr eigenes Konto nicht löschen
users.self_disable|You cannot disable your own account|Sie können Ihr eigenes Konto nicht deaktivieren
license.feature_not_available|This feature requires a Pro or Lifetime license|Diese Funktion erfordert eine Pro- oder Lifetime-Lizenz
license.limit_reached|Resource limit reached — upgrade for unlimited|Ressourcenlimit erreicht — Upgrade für unbegrenzt
rate_limit.login|Too many login attempts, please try again later|Zu viele Anmeldeversuche, bitte versuchen Sie es später erneut
rate_limit.api|Too many requests, please try again later|Zu viele Anfragen, bitte versuchen Sie es später erneut
rate_limit.hostname|Too many hostname reports. Try again later.|Zu viele Hostname-Meldungen. Bitte später erneut versuchen.
"""
_TEXTS = {}
for _line in _TABLE.strip().splitlines():
    _key, _english, _german = _line.split("|")
    _TEXTS[_key] = {"en": _english, "de": _german}


def text(key: str, language: str) -> str:
    return _TEXTS[key][language] if key in _TEXTS else "error." + key


def language(query: str | None, accepted: str | None) -> str:
    """The language of an answer: ``?lang=``, else the first known one of Accept-Language, else English."""
    if query in ("en", "de"):
        return query
    for part in (accepted or "").split(","):
        short = part.split(";")[0].strip()[:2].lower()
        if short in ("en", "de"):
            return short
    return "en"
