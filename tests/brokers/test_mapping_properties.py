"""Whatever bytes come are judged: no exception, and only our own order is ever accepted."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.brokers.samples import COID, order_json
from torghut.brokers import alpaca_answers as answers
from torghut.brokers import alpaca_mapping as mapping
from torghut.brokers.alpaca_answers import Reply
from torghut.ports import Outcome

AT = datetime(2026, 11, 21, tzinfo=UTC)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["1e999999", "-0", "NaN", "0001-01-01T00:00:00+14:00", "\ud800", "new", "filled"]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
ORDERS = st.dictionaries(st.sampled_from(sorted(order_json())), JSON).map(
    lambda changes: order_json(**changes)
)
ERRORS = st.fixed_dictionaries({}, optional={"code": JSON, "message": JSON})
BODIES = st.binary(max_size=200) | (JSON | ORDERS | ERRORS).map(lambda v: json.dumps(v).encode())
HEADERS = st.dictionaries(
    st.sampled_from(["x-ratelimit-reset", "x-ratelimit-limit", "retry-after", "x-request-id"]),
    st.text(max_size=25),
)
REPLIES = st.builds(
    Reply, status=st.integers(100, 699), body=BODIES, received_at=st.just(AT), headers=HEADERS
)


@settings(max_examples=400, deadline=None)
@given(REPLIES)
def test_every_reply_to_a_submission_is_judged(reply: Reply) -> None:
    got = answers.submission_answer(reply, COID)
    assert (got.outcome is Outcome.ACCEPTED) == (got.order is not None)
    assert got.order is None or got.order.client_order_id == COID
    if reply.status >= 500 or reply.status < 200:
        assert got.outcome is Outcome.IN_DOUBT
    for text in (got.message, got.body, got.request_id, got.broker_code):
        assert text is None or (text.encode() is not None and "\0" not in text)


@settings(max_examples=400, deadline=None)
@given(REPLIES)
def test_absence_is_only_the_brokers_404(reply: Reply) -> None:
    try:
        found = answers.lookup_answer(reply, COID)
    except mapping.MalformedBody:
        assert reply.status == 200
        return
    if found is not None and found.order is None:
        assert reply.status == 404


@settings(max_examples=400, deadline=None)
@given(JSON | ORDERS)
def test_no_row_raises_anything_but_malformed(row: object) -> None:
    for read in (mapping.order_of, mapping.account_of, mapping.position_of, mapping.fill_of):
        try:
            read(row)
        except mapping.MalformedBody:
            continue
