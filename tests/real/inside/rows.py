"""Write rows through the models of the release that runs this: `seed`, or `save` for one more backtest.

It runs in the API's container as `python -c`, so it is one file, and is no part of the images. It prints nothing but
what it wrote, as JSON.
"""

import datetime
import itertools
import json
import sys

from chap_core.database import tables
from chap_core.database.database import SessionWrapper, engine
from chap_core.database.dataset_tables import DataSet, DataSource, Observation
from chap_core.database.feature_tables import FeatureSource, FeatureType, ModelFeatureLink
from chap_core.database.model_spec_tables import ModelSpec
from chap_core.database.model_templates_and_config_tables import ConfiguredModelDB, ModelConfiguration, ModelTemplateDB
from sqlmodel import select

NOW = datetime.datetime(2026, 3, 14, 15, 9, 26, 535897)
FEATURES = ("disease_cases", "population", "rainfall", "mean_temperature")
MONTHS = [f"{year}{month:02}" for year in range(2014, 2024) for month in range(1, 13)]
WEEKS = [f"{year}W{week:02}" for year in range(2019, 2024) for week in range(1, 53)]


def kept(model, **values):
    """Make a row of a model of the values that this release has a column for."""
    return model(
        **{name: value for name, value in values.items() if name in model.model_fields or hasattr(model, name)}
    )


def units(number):
    return [f"OrgUnit{index:04}" for index in range(number)]


def sources():
    return [DataSource(covariate=feature, data_element_id=f"de{feature[:9]}") for feature in FEATURES]


def dataset(session, name, periods, period_type, places):
    """Write a dataset with an observation for each period, place and feature; some are known to be missing."""
    row = DataSet(
        name=name,
        type="backtesting",
        created=NOW,
        data_sources=sources(),
        covariates=list(FEATURES[1:]),
        first_period=periods[0],
        last_period=periods[-1],
        org_units=places,
        period_type=period_type,
        geojson=json.dumps({"type": "FeatureCollection", "features": []}),
    )
    session.add(row)
    session.flush()
    made = itertools.product(enumerate(periods), enumerate(places), FEATURES)
    session.add_all(
        Observation(
            dataset_id=row.id,
            period=period,
            org_unit=unit,
            feature_name=feature,
            value=None if (when, where) == (3, 1) else when * 1.25 + where / 7 + len(feature),
        )
        for (when, period), (where, unit), feature in made
    )
    session.commit()
    return row.id


def template(session, name, version, shortest, longest):
    """Write a model template; the bounds of its horizon are called otherwise from v2.2.0 on."""
    row = kept(
        ModelTemplateDB,
        name=name,
        version=version,
        display_name=name.title(),
        description="Ünïcode, 'quotes' and \\",
        required_covariates=["rainfall"],
        source_url=f"https://example.org/{name}@{'ab' * 20}",
        user_options={"lags": {"type": "integer", "default": 3}},
        requires_geo=True,
        min_prediction_length=shortest,
        max_prediction_length=longest,
        min_prediction_periods=shortest,
        max_prediction_periods=longest,
        source_digest="ab" * 20,
        is_live=True,
    )
    session.add(row)
    session.commit()
    return row.id


def backtest(wrapper, model, dataset_id, name, periods, places, n_periods, n_splits, stride):
    """Save a backtest with its forecasts, as a job of this release does at its end."""
    params = {"n_periods": n_periods, "n_splits": n_splits, "stride": stride, "n_retrain": 1}
    params["future_weather_provider"] = "climatology"
    if hasattr(wrapper, "get_or_create_backtest_specification"):
        from chap_core.api_types import BacktestParams

        specification = wrapper.get_or_create_backtest_specification(dataset_id, BacktestParams(**params), places)
        params = {"specification_id": specification.id}
    seen = [len(periods) - n_periods - 1 - split * stride for split in reversed(range(n_splits))]
    forecasts = [
        tables.BacktestForecast(
            period=periods[last + ahead],
            org_unit=unit,
            last_train_period=periods[seen[0]],
            last_seen_period=periods[last],
            values=[last + ahead / 3 + sample / 10 for sample in range(50)],
        )
        for last in seen
        for ahead in range(1, n_periods + 1)
        for unit in places
    ]
    row = kept(
        tables.Backtest,
        dataset_id=dataset_id,
        model_id=model.name,
        model_db_id=model.id,
        name=name,
        created=NOW,
        model_template_version="1.0",
        org_units=places,
        split_periods=[periods[last + 1] for last in seen],
        max_horizon_distance=n_periods,
        aggregate_metrics={"crps": 1.5, "mae": 2.25},
        forecasts=forecasts,
        **params,
    )
    wrapper.add_backtest(row)
    return row.id


def configured(wrapper, template_id, name, lags):
    """Add a configured model as the API does, and return it."""
    options = ModelConfiguration(user_option_values={"lags": lags}, additional_continuous_covariates=["humidity"])
    identity = wrapper.add_configured_model(template_id, options, name)
    return wrapper.session.get(ConfiguredModelDB, identity)


def predictions(session, model, dataset_id, backtest_id):
    """Write a setup that runs on a schedule, and two predictions, of which it made one."""
    setup = tables.PredictionSetup(
        name="Monthly",
        created=NOW,
        backtest_id=backtest_id,
        configured_model_id=model.id,
        start_period="202401",
        org_units=units(5),
        covariate_sources=sources(),
        period_type="month",
        schedule_cron_expression="0 6 2 * *",
        schedule_enabled=True,
        quantile_targets=[tables.QuantileTarget(quantile="0.5", data_element_id="deMedian00")],
    )
    session.add(setup)
    session.commit()
    for number, by in enumerate((setup.id, None)):
        samples = [
            tables.PredictionSamplesEntry(
                period=f"20240{ahead}", org_unit=unit, values=[ahead + s / 9 for s in range(100)]
            )
            for ahead in (1, 2, 3)
            for unit in units(20)
        ]
        prediction = tables.Prediction(
            dataset_id=dataset_id,
            model_id=model.name,
            model_db_id=model.id,
            n_periods=3,
            name=f"Forecast {number}",
            created=NOW,
            meta_data={"by": "seed"},
            org_units=units(20),
            prediction_setup_id=by,
            forecasts=samples,
        )
        session.add(prediction)
    session.commit()


def older_tables(session, backtest_id):
    """Write into the tables that CHAP has and hardly uses any more."""
    session.add(FeatureType(name="rainfall", display_name="Rainfall", description="Precipitation in mm"))
    session.flush()
    session.add(FeatureSource(name="era5", display_name="ERA5", feature_type="rainfall", provider="era5"))
    spec = ModelSpec(name="old", target_name="rainfall", configuration={"lags": 3})
    session.add(spec)
    session.flush()
    session.add(ModelFeatureLink(model_id=spec.id, feature_type="rainfall"))
    metric = {"backtest_id": backtest_id, "metric_id": "mae", "period": "202311", "org_unit": units(1)[0], "value": 2.5}
    split = {"last_train_period": "202310", "last_seen_period": "202310"}
    session.add(kept(tables.BacktestMetric, **metric, **split))
    session.commit()


def seed(wrapper):
    """Write every kind of row that CHAP has."""
    session = wrapper.session
    monthly = dataset(session, "Monthly, 50 districts", MONTHS, "month", units(50))
    weekly = dataset(session, "Weekly, 25 districts", WEEKS, "week", units(25))
    dataset(session, "Small", MONTHS[:24], "month", units(10))
    first = configured(wrapper, template(session, "ewars", "1.0", 1, 6), "default", 3)
    second = configured(wrapper, template(session, "arima", "2.1", 2, 12), "weekly", 5)
    of_first = backtest(wrapper, first, monthly, "Monthly", MONTHS, units(50), n_periods=3, n_splits=4, stride=2)
    backtest(wrapper, second, monthly, "The same, another model", MONTHS, units(50), n_periods=3, n_splits=4, stride=2)
    backtest(wrapper, second, weekly, "Weekly", WEEKS, units(25), n_periods=4, n_splits=3, stride=1)
    predictions(session, first, monthly, of_first)
    older_tables(session, of_first)


def save(wrapper):
    """Save one more backtest, with numbers that no other has."""
    data = wrapper.session.exec(select(DataSet).where(DataSet.name == "Monthly, 50 districts")).one()
    model = wrapper.session.exec(select(ConfiguredModelDB).where(ConfiguredModelDB.name == "ewars")).first()
    identity = backtest(wrapper, model, data.id, "Saved", MONTHS, units(3), n_periods=2, n_splits=2, stride=1)
    print(json.dumps({"backtest": identity}))


with SessionWrapper(engine) as wrapper:
    {"seed": seed, "save": save}[sys.argv[1]](wrapper)
