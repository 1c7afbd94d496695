"""Swagger UI in a real browser: a person logs in, and calls."""

import json
from pathlib import Path

import pytest

from tests.browser import browser
from tests.deployment import PASSWORD
from tests.pipeline.conftest import Running
from tests.waiting import until

pytestmark = pytest.mark.integration
CHAT = "#operations-chat-chat_chat__post"


async def test_a_person_logs_in_and_asks(running: Running, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await page.open(f"{running.ingress.http}/docs")
        await page.click(".auth-wrapper .authorize")
        await page.fill("#oauth_username", "root")
        await page.fill("#oauth_password", PASSWORD)
        await page.click(".auth-container .modal-btn.authorize")
        await until(lambda: page.evaluate("document.querySelector('.auth-container').innerText.includes('Logout')"))
        await page.click(".auth-container .btn-done")
        await page.click(f"{CHAT} .opblock-summary-control")
        await page.fill(f"{CHAT} textarea.body-param__text", json.dumps({"prompt": "asked by a person"}))
        await page.click(f"{CHAT} button.execute")
        status = await page.text(f"{CHAT} .live-responses-table tbody .response-col_status")
        assert status.split()[0] == "200", await page.text(f"{CHAT} .live-responses-table")
        assert "Answer to: asked by a person" in await page.text(
            f"{CHAT} .live-responses-table tbody .response-col_description"
        )
