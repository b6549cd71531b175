"""Use deployments and the total cost of ownership; type-checked, but not run."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import assert_type

import unitune


def ask_behind_a_deployment(run: unitune.Run) -> str:
    """Use a model that needs a deployment."""
    # [start:deploy]
    with unitune.deploy(run, ttl="2h", budget=20) as deployment:
        print(deployment.id, "until", deployment.until)
        answer = run.model.ask("Where is my parcel?")
    # [end:deploy]
    assert_type(deployment, unitune.types.Deployment)
    assert_type(deployment.usd_spent, Decimal | None)
    assert_type(unitune.deployments(standing=True), list[unitune.types.Deployment])
    unitune.deploy(run, ttl=timedelta(minutes=30)).take_down()
    return answer


def ask_more(run: unitune.Run) -> None:
    """Send a conversation, and a complete request."""
    with run.model as model:
        assert_type(model, unitune.types.ModelClient)
        turns = [unitune.Message(role="user", content="Hello")]
        assert_type(model.ask(turns, system="Be brief.", max_tokens=20), str)
        request = unitune.Request(messages=tuple(turns), temperature=0.7, seed=1)
        assert_type(model.ask(request), str)


def costs(job: unitune.Job) -> None:
    """Compare prompting and tuning."""
    cost = unitune.total_cost(job, requests_month=100_000)
    assert_type(cost, unitune.types.TotalCost)
    print(cost)
