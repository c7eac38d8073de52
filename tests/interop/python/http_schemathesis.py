"""Schemathesis: requests made from the OpenAPI document, right ones and wrong ones, find no bug."""

import os
import subprocess
import sys
import tempfile

import pika

from cases import AMQP_URL, HTTP_PORT, PASS, USER, case, main

# What the document promises; 503 and 504 are answers of an API that waits for others.
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "4xx", 501, 503, 504]
"""
# Streams that do not end by themselves, and the end of the broker.
UNSUITABLE = ["subscribe", "followEvents", "followLog", "followTrace", "drainServer"]
EXCLUDED = [word for name in UNSUITABLE for word in ["--exclude-operation-id", name]]


@case
def requests_of_the_document_find_no_bug():
    channel = pika.BlockingConnection(pika.URLParameters(AMQP_URL)).channel()
    for queue in ["0", "q"]:
        channel.queue_declare(queue, durable=True, arguments={"x-max-length": 100})
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "schemathesis.toml"), "w", encoding="utf-8") as file:
            file.write(SETTINGS)
        command = [os.path.join(os.path.dirname(sys.executable), "st"), "run",
                   f"http://127.0.0.1:{HTTP_PORT}/api/v1/openapi.json",
                   "--auth", f"{USER}:{PASS}", "--phases", "examples,coverage,fuzzing",
                   "--checks", "not_a_server_error,content_type_conformance,"
                   "response_schema_conformance", *EXCLUDED,
                   "--max-time", "30", "--request-timeout", "65", "--seed", "1", "--no-color",
                   "--suppress-health-check", "all", "--generation-database", "none",
                   "--continue-on-failure"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150,
                              check=False)
    if done.returncode != 0:
        raise AssertionError(done.stdout[-6000:] + done.stderr[-2000:])


if __name__ == "__main__":
    main()
