CREATE TABLE route (
    uid text PRIMARY KEY,
    code text UNIQUE,
    name text NOT NULL,
    url text NOT NULL,
    disabled boolean NOT NULL DEFAULT false,
    headers jsonb,
    auth jsonb,
    authorities jsonb
);
CREATE TABLE organisationunit (uid text PRIMARY KEY, name text NOT NULL);
INSERT INTO organisationunit SELECT 'ou' || n, 'District ' || n FROM generate_series(1, 18) AS n;
CREATE TABLE datavalue (organisationunit text, period text, value text, PRIMARY KEY (organisationunit, period));
INSERT INTO datavalue SELECT 'ou' || o, '2025' || lpad(m::text, 2, '0'), (o * m)::text FROM generate_series(1, 18) AS o, generate_series(1, 12) AS m;
CREATE TABLE analyticsrun (finished timestamptz NOT NULL DEFAULT now());
