"""A small WSGI application that says who it is."""

import html
import os
from pathlib import Path

GREETING = os.environ.get("GREETING", "Hello")
SERVER = os.environ.get("SERVER", "an unnamed server")
DATA = Path(os.environ.get("DATA", "."))

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{greeting}</title>
<link rel="stylesheet" href="/static/style.css">
<h1>{greeting}</h1>
<p>This page comes from <strong>{server}</strong>, instance <code>{instance}</code>.</p>
</html>
"""


def application(environ, start_response):
    """Answers every request; /healthz tells that it can."""
    path = environ["PATH_INFO"]
    if path == "/healthz":
        status, kind, body = "200 OK", "text/plain", "ok\n"
    elif path == "/":
        instance = (DATA / "instance").read_text().strip()
        values = {"greeting": GREETING, "server": SERVER, "instance": instance}
        body = PAGE.format(**{name: html.escape(value) for name, value in values.items()})
        status, kind = "200 OK", "text/html; charset=utf-8"
    else:
        status, kind, body = "404 Not Found", "text/plain", "not found\n"
    content = body.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(content)))])
    return [content]
