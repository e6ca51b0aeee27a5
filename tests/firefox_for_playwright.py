"""Stands between Playwright and the machine's own Firefox: hands on every message, but answers one by itself.

Playwright speaks WebDriver BiDi to an unchanged Firefox, to its newest release. Each context begins by asking for a
color scheme with a command that an ESR does not have yet; nothing here needs one. Playwright starts this as the
browser.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect

UNKNOWN = "emulation.setMediaFeaturesOverride"
LARGEST_MESSAGE_BYTES = 1 << 28


async def main(program: str, *arguments: str) -> int:
    firefox = await asyncio.create_subprocess_exec(program, *arguments, stderr=asyncio.subprocess.PIPE)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, firefox.terminate)

    class Door(WebSocketHandler):
        async def open(self):
            self.behind = asyncio.ensure_future(
                websocket_connect(
                    f"{address}/session",
                    max_message_size=LARGEST_MESSAGE_BYTES,
                    on_message_callback=lambda text: self.close() if text is None else self.write_message(text),
                )
            )

        async def on_message(self, text):
            request = json.loads(text)
            if request["method"] == UNKNOWN:
                await self.write_message({"type": "success", "id": request["id"], "result": {}})
            else:
                await (await self.behind).write_message(text)

        def on_close(self):
            self.behind.add_done_callback(lambda opened: opened.result().close())

    async for line in firefox.stderr:
        if told := re.search(rb"(WebDriver BiDi listening on )(ws://\S+)", line):
            address = told[2].decode()
            [socket] = bind_sockets(0, "127.0.0.1")
            door = Application([("/session", Door)], websocket_max_message_size=LARGEST_MESSAGE_BYTES)
            HTTPServer(door).add_socket(socket)
            line = told[1] + b"ws://127.0.0.1:%d\n" % socket.getsockname()[1]
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
    return await firefox.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
