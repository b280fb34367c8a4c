"""A WSGI application that takes orders (POST) and says which were fulfilled (GET)."""

import html

from tasks import DONE, fulfil

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Orders</title>
<link rel="stylesheet" href="/static/style.css">
<h1>Orders</h1>
<form method="post"><input name="what" required> <button>Order</button></form>
<ul>{items}</ul>
</html>
"""


def application(environ, start_response):
    """Answers every request; /healthz tells that it can."""
    # As little as a real application would: its framework reads forms.
    if environ["PATH_INFO"] == "/healthz":
        return answer(start_response, "200 OK", "ok\n", "text/plain")
    if environ["REQUEST_METHOD"] == "POST":
        form = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        fulfil.delay(form.removeprefix("what="))
        return answer(start_response, "303 See Other", "", "text/plain", ("Location", "/"))
    done = DONE.read_text().splitlines() if DONE.exists() else []
    items = "".join(f"<li>{html.escape(what)}" for what in done)
    return answer(start_response, "200 OK", PAGE.format(items=items), "text/html; charset=utf-8")


def answer(start_response, status, body, kind, *headers):
    """Sends an answer."""
    content = body.encode()
    length = str(len(content))
    start_response(status, [("Content-Type", kind), ("Content-Length", length), *headers])
    return [content]
