-- Rows as a district health office has them: monthly observations, evaluations and predictions with their samples.
-- One file for every release: jsonb_populate_record leaves out what a release has no column for.
BEGIN;
-- The rows below fit together; checking each of them would take most of the time.
SET LOCAL session_replication_role = replica;
CREATE TEMP TABLE new_dataset AS SELECT coalesce(max(id), 0) AS before FROM dataset;
INSERT INTO dataset SELECT r.* FROM generate_series(1, greatest(1, least(40, :rows / 100))) AS n
CROSS JOIN LATERAL jsonb_populate_record(NULL::dataset, jsonb_build_object(
    'id', nextval('dataset_id_seq'), 'name', 'Dengue in district ' || n || ' – Viêt Nam ຫວຽງຈັນ',
    'created', timestamp '2026-01-01' + n * interval '1 hour', 'type', 'evaluation',
    'geojson', '{"type":"FeatureCollection","features":[]}', 'covariates', '["rainfall","mean_temperature"]'::jsonb,
    'first_period', '201001', 'last_period', '202512', 'org_units', '["ou1","ou2","ou3"]'::jsonb, 'period_type', 'month',
    'created_manually', n % 2 = 0, 'source_revision', 'r' || n)) AS r;
INSERT INTO observation (dataset_id, period, org_unit, value, feature_name)
SELECT (SELECT before FROM new_dataset) + 1 + n % greatest(1, least(40, :rows / 100)),
       2010 + (n / 12) % 16 || lpad((n % 12 + 1)::text, 2, '0'), 'ou' || n % 400,
       CASE WHEN n % 97 <> 0 THEN round((100 * abs(sin(n)))::numeric, 3) END,
       (ARRAY['rainfall', 'mean_temperature', 'disease_cases', 'population'])[1 + n % 4]
FROM generate_series(1, :rows) AS n;
CREATE TEMP TABLE new_backtest AS
SELECT nextval('backtest_id_seq') AS id, d.id AS dataset_id, d.created, m.id AS model_db_id, m.name AS model
FROM (SELECT * FROM dataset ORDER BY id DESC LIMIT 4) AS d CROSS JOIN (SELECT * FROM configuredmodeldb ORDER BY id LIMIT 3) AS m;
CREATE TEMP TABLE new_specification (dataset_id int, id int);
-- In a block, a statement about a table that is not there is no error while it is not run.
DO $$ BEGIN
    IF to_regclass('backtestspecification') IS NOT NULL THEN
        INSERT INTO backtestspecification SELECT r.* FROM (SELECT DISTINCT dataset_id FROM new_backtest) AS b
        CROSS JOIN LATERAL jsonb_populate_record(NULL::backtestspecification, jsonb_build_object(
            'id', nextval('backtestspecification_id_seq'), 'dataset_id', b.dataset_id, 'n_periods', 3, 'n_splits', 7, 'stride', 1,
            'n_retrain', 1, 'future_weather_provider', 'climatology', 'org_units', '["ou1","ou2"]'::jsonb,
            'target_column', 'disease_cases')) AS r ON CONFLICT DO NOTHING;
        INSERT INTO new_specification SELECT dataset_id, id FROM backtestspecification
        WHERE (n_periods, n_splits, stride) = (3, 7, 1) AND dataset_id IN (SELECT dataset_id FROM new_backtest);
    END IF;
END $$;
INSERT INTO backtest SELECT r.* FROM new_backtest AS b LEFT JOIN new_specification AS s USING (dataset_id)
CROSS JOIN LATERAL jsonb_populate_record(NULL::backtest, jsonb_build_object(
    'id', b.id, 'dataset_id', b.dataset_id, 'model_id', b.model, 'model_db_id', b.model_db_id,
    'name', 'Evaluation of ' || b.model, 'created', b.created, 'org_units', '["ou1","ou2"]'::jsonb,
    'split_periods', '["202401","202402"]'::jsonb, 'aggregate_metrics', '{"mae": 12.25, "crps": 8.5}'::jsonb,
    'n_periods', 3, 'n_splits', 7, 'stride', 1, 'n_retrain', 1, 'future_weather_provider', 'climatology',
    'specification_id', s.id, 'chap_version', '2.3.1')) AS r;
-- At least so many that each evaluation has its 7 splits of 3 periods: v2.2.0 works its parameters out from these.
INSERT INTO backtestforecast (backtest_id, period, org_unit, values, last_train_period, last_seen_period)
SELECT (SELECT max(id) FROM backtest) - n % 12, '20250' || n / 12 % 3 + 1, 'ou' || n % 400, samples.list, '202312', '20240' || n / 36 % 7 + 1
FROM generate_series(1, greatest(252, :rows / 10)) AS n
CROSS JOIN LATERAL (
    SELECT ('[' || string_agg((hashint8(n * 128 + s) & 1023)::text, ', ') || ']')::json AS list FROM generate_series(1, 100) AS s
) AS samples;
INSERT INTO backtestmetric (backtest_id, metric_id, period, org_unit, last_train_period, last_seen_period, value)
SELECT (SELECT max(id) FROM backtest) - n % 12, (ARRAY['mae', 'crps', 'rmse'])[1 + n % 3], '202501', 'ou' || n % 400, '202312', '202403', abs(cos(n))
FROM generate_series(1, :rows / 20) AS n;
CREATE TEMP TABLE new_policy (id int);
DO $$ BEGIN
    IF to_regclass('alertpolicy') IS NOT NULL THEN
        INSERT INTO new_policy SELECT nextval('alertpolicy_id_seq');
        INSERT INTO alertpolicy (id, name, levels, created)
        SELECT id, 'Dengue ' || id, '[{"name": "monitor", "exceedance_threshold": 0.5}]', timestamp '2026-02-01' FROM new_policy;
    END IF;
END $$;
INSERT INTO predictionsetup SELECT r.* FROM (SELECT * FROM new_backtest ORDER BY id DESC LIMIT 3) AS b LEFT JOIN new_policy AS p ON true
CROSS JOIN LATERAL jsonb_populate_record(NULL::predictionsetup, jsonb_build_object(
    'id', nextval('predictionsetup_id_seq'), 'name', 'Monthly ' || b.id, 'created', timestamp '2026-02-01', 'backtest_id', b.id,
    'configured_model_id', b.model_db_id, 'start_period', '202602', 'org_units', '["ou1"]'::jsonb, 'covariate_sources', '[]'::jsonb,
    'period_type', 'month', 'schedule_cron_expression', '0 4 1 * *', 'schedule_enabled', true, 'quantile_targets', '[]'::jsonb,
    'alert_policy_id', p.id)) AS r;
INSERT INTO prediction (dataset_id, model_id, model_db_id, name, created, n_periods, meta_data, org_units, prediction_setup_id)
SELECT d.id, 'naive_model', (SELECT min(id) FROM configuredmodeldb), 'Prediction ' || d.id, d.created, 3, '{}', '["ou1","ou2"]',
       (SELECT max(id) FROM predictionsetup)
FROM (SELECT * FROM dataset ORDER BY id DESC LIMIT 5) AS d;
INSERT INTO predictionsamplesentry (prediction_id, period, org_unit, values)
SELECT (SELECT max(id) FROM prediction) - n % greatest(1, least(5, (SELECT count(*) FROM prediction)))::int, '20260' || 1 + n % 3, 'ou' || n % 400, samples.list
FROM generate_series(1, :rows / 40) AS n
CROSS JOIN LATERAL (
    SELECT ('[' || string_agg((hashint8(n * -128 - s) & 1023)::text, ', ') || ']')::json AS list FROM generate_series(1, 100) AS s
) AS samples;
DO $$ BEGIN
    IF to_regclass('alert') IS NOT NULL THEN
        INSERT INTO alert (time_period, org_unit, alert_policy_id, level, prediction_id, created, approved)
        SELECT '20260' || n, 'ou1', p.id, 'monitor', (SELECT max(id) FROM prediction), timestamp '2026-02-02', 'pending'
        FROM new_policy AS p CROSS JOIN generate_series(1, 3) AS n;
    END IF;
    IF to_regclass('specificationbaseline') IS NOT NULL THEN
        INSERT INTO specificationbaseline (specification_id, configured_model_id, status, message, claimed_at)
        SELECT s.id, (SELECT max(id) FROM configuredmodeldb), 'not_applicable', 'too little history', timestamp '2026-02-02'
        FROM new_specification AS s LIMIT 2 ON CONFLICT DO NOTHING;
    END IF;
END $$;
INSERT INTO featuretype (name, display_name, description) VALUES
    ('rainfall', 'Rainfall', 'Millimetres in a month'), ('mean_temperature', 'Mean temperature', 'Degrees Celsius') ON CONFLICT DO NOTHING;
INSERT INTO featuresource (name, display_name, feature_type, provider, supported_period_types) VALUES
    ('era5', 'ERA5-Land', 'rainfall', 'Copernicus', '["month"]') ON CONFLICT DO NOTHING;
DROP TABLE new_dataset, new_backtest, new_specification, new_policy;
COMMIT;
