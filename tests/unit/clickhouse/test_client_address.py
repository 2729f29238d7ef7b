"""What CLICKHOUSE_URL holds is used as it was meant, and a password in it is in no message."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tailrace.access.home_servers import login
from tailrace.clickhouse.client import ClickHouse
from tailrace.errors import Unavailable, UsageError

PASSWORDS = ["secret", "1/secret", "8123#secret", "a?secret", "a@secret", "se%cret", "a:secret", "[secret"]


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_of_any_characters(password: str, quoted: bool) -> None:
    written = quote(password, safe="") if quoted else password
    clickhouse = ClickHouse(f"http://ops:{written}@127.0.0.1:1/shop", timeout=1)
    assert (clickhouse.address, clickhouse.database) == ("http://127.0.0.1:1", "shop")
    assert login(clickhouse._auth) == f"ops:{password}"
    with pytest.raises(Unavailable) as failed:
        clickhouse.query("SELECT 1")
    assert "secret" not in str(failed.value)
    assert "cret" not in repr(failed.value.__cause__)


@pytest.mark.parametrize(
    "url", ["ftp://ops:secret@h/d", "ops:secret@h:8123", "http://ops:secret@h:port/d", "http://ops:secret@"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="CLICKHOUSE_URL") as refused:
        ClickHouse(url)
    assert "secret" not in str(refused.value)
