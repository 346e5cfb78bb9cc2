-- Rows as a district health office has them: monthly observations, evaluations and predictions with their samples.
BEGIN;
-- The rows below fit together; checking each of them would take most of the time.
SET LOCAL session_replication_role = replica;
CREATE TEMP TABLE new_dataset AS SELECT coalesce(max(id), 0) AS before FROM dataset;
INSERT INTO dataset (name, created, type, geojson, covariates, first_period, last_period, org_units, period_type)
SELECT 'Dengue in district ' || n || ' – Viêt Nam ຫວຽງຈັນ', timestamp '2026-01-01' + n * interval '1 hour', 'evaluation',
       '{"type":"FeatureCollection","features":[]}', '["rainfall","mean_temperature"]', '2010-01', '2025-12',
       '["ou1","ou2","ou3"]', 'month'
FROM generate_series(1, greatest(1, least(40, :rows / 100))) AS n;
INSERT INTO observation (dataset_id, period, org_unit, value, feature_name, element_id)
SELECT (SELECT before FROM new_dataset) + 1 + n % greatest(1, least(40, :rows / 100)),
       2010 + (n / 12) % 16 || '-' || lpad((n % 12 + 1)::text, 2, '0'), 'ou' || n % 400,
       CASE WHEN n % 97 <> 0 THEN round((100 * abs(sin(n)))::numeric, 3) END,
       (ARRAY['rainfall', 'mean_temperature', 'disease_cases', 'population'])[1 + n % 4], 'de' || n % 4
FROM generate_series(1, :rows) AS n;
INSERT INTO backtest (dataset_id, model_id, model_db_id, name, created, org_units, split_periods, aggregate_metrics)
SELECT d.id, m.name, m.id, 'Evaluation of ' || m.name, d.created, '["ou1","ou2"]', '["2024-01","2024-04"]', '{"mae": 12.25, "crps": 8.5}'
FROM (SELECT * FROM dataset ORDER BY id DESC LIMIT 4) AS d CROSS JOIN (SELECT * FROM configuredmodeldb ORDER BY id LIMIT 3) AS m;
INSERT INTO backtestforecast (backtest_id, period, org_unit, values, last_train_period, last_seen_period)
SELECT (SELECT max(id) FROM backtest) - n % 12, '2025-' || lpad((n % 12 + 1)::text, 2, '0'), 'ou' || n % 400, samples.list, '2024-01', '2024-03'
FROM generate_series(1, :rows / 10) AS n
CROSS JOIN LATERAL (
    SELECT ('[' || string_agg((hashint8(n * 128 + s) & 1023)::text, ', ') || ']')::json AS list FROM generate_series(1, 100) AS s
) AS samples;
INSERT INTO backtestmetric (backtest_id, metric_id, period, org_unit, last_train_period, last_seen_period, value)
SELECT (SELECT max(id) FROM backtest) - n % 12, (ARRAY['mae', 'crps', 'rmse'])[1 + n % 3], '2025-01', 'ou' || n % 400, '2024-01', '2024-03', abs(cos(n))
FROM generate_series(1, :rows / 20) AS n;
INSERT INTO predictionsetup (name, configured_model_id, created, period_type, start_period, org_units, archived)
SELECT 'Monthly ' || n, (SELECT min(id) FROM configuredmodeldb), timestamp '2026-02-01', 'month', '2026-02', '["ou1"]', false
FROM generate_series(1, 3) AS n;
INSERT INTO prediction (dataset_id, model_id, model_db_id, name, created, n_periods, org_units, prediction_setup_id)
SELECT d.id, 'naive_model', (SELECT min(id) FROM configuredmodeldb), 'Prediction ' || d.id, d.created, 3, '["ou1","ou2"]', (SELECT max(id) FROM predictionsetup)
FROM (SELECT * FROM dataset ORDER BY id DESC LIMIT 5) AS d;
INSERT INTO predictionsamplesentry (prediction_id, period, org_unit, values)
SELECT (SELECT max(id) FROM prediction) - n % greatest(1, least(5, (SELECT count(*) FROM prediction)))::int, '2026-0' || 1 + n % 3, 'ou' || n % 400, samples.list
FROM generate_series(1, :rows / 40) AS n
CROSS JOIN LATERAL (
    SELECT ('[' || string_agg((hashint8(n * -128 - s) & 1023)::text, ', ') || ']')::json AS list FROM generate_series(1, 100) AS s
) AS samples;
INSERT INTO featuretype (name, display_name, description) VALUES
    ('rainfall', 'Rainfall', 'Millimetres in a month'), ('mean_temperature', 'Mean temperature', 'Degrees Celsius') ON CONFLICT DO NOTHING;
INSERT INTO featuresource (name, display_name, url, description, provider, supported_features) VALUES
    ('era5', 'ERA5-Land', 'https://models.example/era5', 'Reanalysis', 'Copernicus', '["rainfall","mean_temperature"]') ON CONFLICT DO NOTHING;
DROP TABLE new_dataset;
COMMIT;
