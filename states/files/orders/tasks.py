"""What is done with orders, one after the other, by a Celery worker."""

import os
from pathlib import Path

from celery import Celery

DONE = Path(os.environ["DATA"]) / "done"

app = Celery("orders", broker=os.environ["BROKER"])
app.conf.task_default_queue = "orders"
app.conf.task_ignore_result = True
# An order whose worker dies is taken by the next one.
app.conf.task_acks_late = True


@app.task
def fulfil(what):
    """Fulfils an order; a line in a file has to do for a parcel."""
    with DONE.open("a") as done:
        done.write(what + "\n")
