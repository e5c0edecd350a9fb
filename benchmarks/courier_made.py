from services.relay.bodies import Bodies
from services.relay.connector import tls_context
from services.relay.courier import Courier
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.database import Database


def made_courier() -> Courier:
    settings = RelaySettings(
        RELAY_DATABASE_URL="postgresql://unused",
        QSTASH_TOKEN="t",
        QSTASH_CURRENT_SIGNING_KEY="sig_" + "c" * 30,
        QSTASH_NEXT_SIGNING_KEY="sig_" + "n" * 30,
        RELAY_ENCRYPTION_KEYS="k",
        RELAY_ALLOW_PRIVATE="127.0.0.0/8",
    )
    return Courier(
        settings, Bodies(Chunks(Database(None)), 1000), tls_context(None), settings.current_signing_key.get_secret_value
    )
