"""The table of routes.

Starlette's router, authorisation, the OpenAPI document and the test of isolation all read this table, so that a new
route cannot be forgotten by one of them.
"""

from typing import Literal

from pydantic import BaseModel

from latticed.api import catalog, hooks, runs
from latticed.api.exchange import Route, Text
from latticed.api.queries import (
    ApprovalsQuery,
    DeliveriesQuery,
    EventsQuery,
    FeedQuery,
    HookQuery,
    PageQuery,
    RunsQuery,
    WaitQuery,
)
from latticed.models.deliveries import Delivery, DeliveryPage
from latticed.models.events import EventPage, FeedPage
from latticed.models.people import (
    AgentPage,
    Answer,
    Approval,
    ApprovalPage,
    NewToken,
    QueuePage,
    TokenPage,
    TokenRequest,
    Whoami,
    Workspace,
    WorkspacePage,
    WorkspaceRequest,
)
from latticed.models.registering import Hook, HookPage, HookPatch, HookRequest
from latticed.models.runs import (
    Accepted,
    CancelRequest,
    FramePage,
    RerunRequest,
    Run,
    RunPage,
    SignalAccepted,
    SignalRequest,
    StepPage,
    StopAnswer,
    StopRequest,
    Submission,
    Why,
)


class Up(BaseModel):
    """The process is up."""

    status: Literal["up"]


class Ready(BaseModel):
    """The daemon takes work."""

    status: Literal["ready"]


class Document(BaseModel):
    """An OpenAPI 3.1 document."""

    openapi: str
    info: dict[str, str]
    paths: dict[str, object]


WORKSPACE = "/v1/workspaces/{workspace}"
RUN = WORKSPACE + "/runs/{run_id}"
DELIVERY = WORKSPACE + "/hooks/deliveries/{delivery_id}"

ROUTES: tuple[Route, ...] = (
    Route("POST", WORKSPACE + "/runs", "operator", "Submit a run", runs.submit_run, {202: Accepted, 200: Accepted},
          query=WaitQuery, body=Submission, idempotent=True, problems=(404, 409, 429)),
    Route("GET", WORKSPACE + "/runs", "viewer", "List runs, newest first", runs.list_runs, {200: RunPage},
          query=RunsQuery),
    Route("GET", RUN, "viewer", "Get a run", runs.get_run, {200: Run}),
    Route("POST", RUN + "/stop", "operator", "Stop a run", runs.stop_run, {202: StopAnswer, 200: StopAnswer},
          body=StopRequest, body_optional=True),
    Route("POST", RUN + "/cancel", "operator", "Stop a run now", runs.cancel_run, {202: StopAnswer, 200: StopAnswer},
          body=CancelRequest, body_optional=True),
    Route("POST", RUN + "/rerun", "operator", "Run a finished run again", runs.rerun, {202: Accepted, 200: Accepted},
          query=WaitQuery, body=RerunRequest, body_optional=True, idempotent=True, problems=(409, 429)),
    Route("GET", RUN + "/why", "viewer", "Say why a run is not running", runs.get_why, {200: Why}),
    Route("GET", RUN + "/steps", "viewer", "List a run's steps, oldest first", runs.list_steps, {200: StepPage},
          query=PageQuery),
    Route("GET", RUN + "/replay", "viewer", "Tell a run's timeline, oldest first", runs.list_frames, {200: FramePage},
          query=PageQuery),
    Route("GET", RUN + "/events", "viewer", "Follow or page a run's timeline", runs.list_events, {200: EventPage},
          query=EventsQuery, streams=True),
    Route("POST", RUN + "/signals/{signal}", "operator", "Send a signal to a run", runs.send_signal,
          {202: SignalAccepted}, body=SignalRequest, body_optional=True, problems=(409,)),
    Route("GET", WORKSPACE + "/events", "viewer", "Follow or page a workspace's feed", runs.list_feed, {200: FeedPage},
          query=FeedQuery, streams=True),
    Route("GET", WORKSPACE + "/approvals", "viewer", "List questions to people, newest first", runs.list_approvals,
          {200: ApprovalPage}, query=ApprovalsQuery),
    Route("POST", WORKSPACE + "/approvals/{approval_id}", "operator", "Answer a question", runs.answer_approval,
          {200: Approval}, body=Answer, problems=(409,)),
    Route("GET", WORKSPACE + "/agents", "viewer", "List agents", catalog.list_agents, {200: AgentPage}),
    Route("GET", WORKSPACE + "/queues", "viewer", "List queues", catalog.list_queues, {200: QueuePage}),
    Route("GET", WORKSPACE + "/tokens", "admin", "List tokens, newest first", catalog.list_tokens, {200: TokenPage},
          query=PageQuery),
    Route("POST", WORKSPACE + "/tokens", "admin", "Make a token", catalog.create_token, {201: NewToken},
          body=TokenRequest, problems=(409,)),
    Route("DELETE", WORKSPACE + "/tokens/{token_id}", "admin", "Revoke a token", catalog.revoke_token, {204: None}),
    Route("GET", WORKSPACE + "/hooks", "admin", "List hooks", hooks.list_hooks, {200: HookPage}, query=PageQuery),
    Route("POST", WORKSPACE + "/hooks", "admin", "Register a webhook", hooks.create_hook, {201: Hook},
          body=HookRequest, problems=(409,)),
    Route("GET", WORKSPACE + "/hooks/{hook}", "admin", "Get a hook", hooks.get_hook, {200: Hook}, query=HookQuery),
    Route("PATCH", WORKSPACE + "/hooks/{hook}", "admin", "Change a registered hook", hooks.update_hook, {200: Hook},
          body=HookPatch, problems=(409,)),
    Route("DELETE", WORKSPACE + "/hooks/{hook}", "admin", "Remove a registered hook", hooks.delete_hook, {204: None},
          problems=(409,)),
    Route("GET", WORKSPACE + "/hooks/deliveries", "admin", "List executions of hooks, newest first",
          hooks.list_deliveries, {200: DeliveryPage}, query=DeliveriesQuery),
    Route("GET", DELIVERY, "admin", "Get an execution of a hook", hooks.get_delivery, {200: Delivery}),
    Route("POST", DELIVERY + "/redeliver", "admin", "Send a delivery again", hooks.redeliver, {202: Delivery},
          problems=(409,)),
    Route("GET", "/v1/workspaces", "viewer", "List workspaces", catalog.list_workspaces, {200: WorkspacePage},
          query=PageQuery),
    Route("POST", "/v1/workspaces", "admin", "Make a workspace", catalog.create_workspace, {201: Workspace},
          body=WorkspaceRequest, everywhere=True, problems=(409,)),
    Route("GET", "/v1/whoami", "viewer", "Say who is asking", catalog.whoami, {200: Whoami}),
    Route("GET", "/healthz", None, "Say whether the process is up", catalog.healthz, {200: Up}),
    Route("GET", "/readyz", None, "Say whether the daemon takes work", catalog.readyz, {200: Ready}, problems=(503,)),
    Route("GET", "/metrics", "admin", "Give figures for Prometheus", catalog.metrics,
          {200: Text("text/plain")}, everywhere=True),
    Route("GET", "/openapi.json", "viewer", "Give this document", catalog.openapi, {200: Document}),
    Route("GET", "/docs", "viewer", "Show this interface as a page", catalog.docs, {200: Text("text/html")}),
)  # fmt: skip
"""Every route there is."""
