"""Runs, their timelines and the questions they ask."""

from typing import Any

from latticed.api.auth import authenticate
from latticed.api.exchange import Call, Reply, json_reply
from latticed.api.idempotency import made_reply, once
from latticed.api.queries import (
    ApprovalsQuery,
    EventsQuery,
    FeedQuery,
    NoQuery,
    PageQuery,
    RunsQuery,
    WaitQuery,
)
from latticed.api.sse import resume_point, stream_feed, stream_run, wants_stream
from latticed.errors import LatticedError
from latticed.models.people import Answer
from latticed.models.runs import CancelRequest, RerunRequest, SignalRequest, StopRequest, Submission


async def _accepted(call: Call[WaitQuery, Any], run: dict[str, Any], replayed: bool) -> Reply:
    if call.query.wait:
        try:
            who = await authenticate(call.lattice, call.headers)  # They may have been revoked meanwhile.
            run = await call.lattice.wait_for(call.workspace, run["id"], who, call.query.wait)
        except LatticedError:
            # The run is on disk: that is the answer, whatever happened to the waiting.
            pass
    answer = {
        "run": run,
        "execution_mode": "async",
        "accepted": True,
        "events_url": run["events_url"],
        "stop_url": run["stop_url"],
    }
    return made_reply(202, answer, replayed)


async def submit_run(call: Call[WaitQuery, Submission]) -> Reply:
    """Puts a run on disk."""
    run, replayed = await call.lattice.submit(call.workspace, call.body, call.principal, once(call))
    return await _accepted(call, run, replayed)


async def rerun(call: Call[WaitQuery, RerunRequest]) -> Reply:
    """Puts a finished run on disk again, as a new one."""
    run, replayed = await call.lattice.rerun(
        call.workspace, call.params["run_id"], call.body, call.principal, once(call)
    )  # fmt: skip
    return await _accepted(call, run, replayed)


async def list_runs(call: Call[RunsQuery, None]) -> Reply:
    """A page of runs."""
    query = call.query
    page = await call.lattice.list_runs(
        call.workspace,
        kind=query.kind,
        status=query.status,
        target=query.target,
        tag=query.tag,
        parent=query.parent,
        limit=query.limit,
        cursor=query.cursor,
    )
    return json_reply(200, page)


async def get_run(call: Call[NoQuery, None]) -> Reply:
    """One run."""
    return json_reply(200, await call.lattice.get_run(call.workspace, call.params["run_id"]))


async def stop_run(call: Call[NoQuery, StopRequest]) -> Reply:
    """Stops a run by the ladder."""
    return await _stopped(call, call.body)


async def cancel_run(call: Call[NoQuery, CancelRequest]) -> Reply:
    """Stops a run without waiting for its step."""
    return await _stopped(call, StopRequest(mode="now", reason=call.body.reason, children=call.body.children))


async def _stopped(call: Call[NoQuery, Any], request: StopRequest) -> Reply:
    answer = await call.lattice.stop(call.workspace, call.params["run_id"], request, call.principal)
    return json_reply(202 if answer["stopped"] else 200, answer)


async def get_why(call: Call[NoQuery, None]) -> Reply:
    """Why a run is not running."""
    return json_reply(200, await call.lattice.why(call.workspace, call.params["run_id"]))


async def list_steps(call: Call[PageQuery, None]) -> Reply:
    """A page of a run's journal."""
    query = call.query
    page = await call.lattice.list_steps(call.workspace, call.params["run_id"], limit=query.limit, cursor=query.cursor)
    return json_reply(200, page)


async def list_frames(call: Call[PageQuery, None]) -> Reply:
    """A page of a run's timeline, told for a person."""
    query = call.query
    page = await call.lattice.list_frames(call.workspace, call.params["run_id"], limit=query.limit, cursor=query.cursor)
    return json_reply(200, page)


async def list_events(call: Call[EventsQuery, None]) -> Reply:
    """A run's timeline: a stream if the client accepts one, else a page, which begins at `?after=` or `?cursor=`."""
    if wants_stream(call.headers):
        return await stream_run(call)
    resume_point(call.headers)
    query = call.query
    page = await call.lattice.list_events(call.workspace, call.params["run_id"], after=query.begins, limit=query.limit)
    return json_reply(200, page)


async def list_feed(call: Call[FeedQuery, None]) -> Reply:
    """A workspace's feed: a stream if the client accepts one, else a page, which begins at `?after=` or `?cursor=`."""
    if wants_stream(call.headers):
        return await stream_feed(call)
    resume_point(call.headers)
    query = call.query
    page = await call.lattice.list_feed(
        call.workspace, after=query.begins or 0, limit=query.limit, types=query.wanted(), kind=query.kind
    )
    return json_reply(200, page)


async def send_signal(call: Call[NoQuery, SignalRequest]) -> Reply:
    """Delivers data to a run that waits for it, or will."""
    return made_reply(
        202,
        *await call.lattice.signal(
            call.workspace, call.params["run_id"], call.params["signal"], call.body, call.principal, once(call)
        ),
    )


async def list_approvals(call: Call[ApprovalsQuery, None]) -> Reply:
    """A page of questions to people."""
    query = call.query
    page = await call.lattice.list_approvals(
        call.workspace, status=query.status, lane=query.lane, limit=query.limit, cursor=query.cursor
    )
    return json_reply(200, page)


async def answer_approval(call: Call[NoQuery, Answer]) -> Reply:
    """Answers a question."""
    view = await call.lattice.answer(call.workspace, call.params["approval_id"], call.body, call.principal)
    return json_reply(200, view)
