"""Prepare the DHIS2 database: a one-shot that runs at every `up`."""

import os

import psycopg2

with psycopg2.connect(os.environ["DHIS2_DATABASE_URL"]) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM route")
    print("routes:", cursor.fetchone()[0])
