"""The table of routes.

Starlette's router, authorisation, the OpenAPI document and the test of isolation all read this table, so that a new
route cannot be forgotten by one of them.
"""

from typing import Literal

from pydantic import BaseModel

from latticed.api import audit, catalog, hooks, people, runs
from latticed.api.exchange import Route, Text
from latticed.api.queries import (
    ApprovalsQuery,
    AuditQuery,
    DeliveriesQuery,
    EventsQuery,
    FeedQuery,
    ForceQuery,
    HookQuery,
    PageQuery,
    RunsQuery,
    WaitQuery,
    WholeAuditQuery,
)
from latticed.models.audit import AuditPage
from latticed.models.deliveries import Delivery, DeliveryPage
from latticed.models.events import EventPage, FeedPage
from latticed.models.people import (
    AgentPage,
    Answer,
    Approval,
    ApprovalPage,
    NewToken,
    QueuePage,
    SignIn,
    Token,
    TokenPage,
    TokenRequest,
    Whoami,
    Workspace,
    WorkspaceDetail,
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
          {202: SignalAccepted, 200: SignalAccepted}, body=SignalRequest, body_optional=True, idempotent=True,
          problems=(409, 429)),
    Route("GET", WORKSPACE + "/events", "viewer", "Follow or page a workspace's feed", runs.list_feed, {200: FeedPage},
          query=FeedQuery, streams=True),
    Route("GET", WORKSPACE + "/approvals", "viewer", "List questions to people, newest first", runs.list_approvals,
          {200: ApprovalPage}, query=ApprovalsQuery),
    Route("POST", WORKSPACE + "/approvals/{approval_id}", "operator", "Answer a question", runs.answer_approval,
          {200: Approval}, body=Answer, problems=(409,)),
    Route("GET", WORKSPACE + "/agents", "viewer", "List agents", catalog.list_agents, {200: AgentPage},
          query=PageQuery),
    Route("GET", WORKSPACE + "/queues", "viewer", "List queues", catalog.list_queues, {200: QueuePage},
          query=PageQuery),
    Route("GET", WORKSPACE + "/tokens", "admin", "List tokens, newest first", people.list_tokens, {200: TokenPage},
          query=PageQuery),
    Route("POST", WORKSPACE + "/tokens", "admin", "Make a token", people.create_token,
          {201: NewToken, 200: Token}, body=TokenRequest, idempotent=True, problems=(409,)),
    Route("GET", WORKSPACE + "/tokens/{token_id}", "admin", "Get a token", people.get_token, {200: Token}),
    Route("DELETE", WORKSPACE + "/tokens/{token_id}", "admin", "Revoke a token", people.revoke_token, {204: None}),
    Route("GET", WORKSPACE + "/audit", "admin", "List who did what, newest first", audit.list_audit, {200: AuditPage},
          query=AuditQuery, also=(audit.JSON_LINES,)),
    Route("GET", WORKSPACE + "/hooks", "admin", "List hooks", hooks.list_hooks, {200: HookPage}, query=PageQuery),
    Route("POST", WORKSPACE + "/hooks", "admin", "Register a webhook", hooks.create_hook,
          {201: Hook, 200: Hook}, body=HookRequest, idempotent=True, problems=(409,)),
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
    Route("GET", "/v1/workspaces", "viewer", "List workspaces", people.list_workspaces, {200: WorkspacePage},
          query=PageQuery),
    Route("POST", "/v1/workspaces", "admin", "Make a workspace", people.create_workspace,
          {201: Workspace, 200: Workspace}, body=WorkspaceRequest, everywhere=True, idempotent=True,
          problems=(404, 409)),
    Route("GET", WORKSPACE, "viewer", "Get a workspace", people.get_workspace, {200: WorkspaceDetail}),
    Route("DELETE", WORKSPACE, "admin", "Remove a workspace and all that it holds", people.delete_workspace,
          {204: None}, query=ForceQuery, everywhere=True, problems=(409,)),
    Route("GET", "/v1/tokens", "admin", "List tokens for all workspaces", people.list_wide_tokens, {200: TokenPage},
          query=PageQuery, everywhere=True),
    Route("POST", "/v1/tokens", "admin", "Make a token for all workspaces", people.create_wide_token,
          {201: NewToken, 200: Token}, body=TokenRequest, everywhere=True, idempotent=True, problems=(409,)),
    Route("GET", "/v1/tokens/{token_id}", "admin", "Get a token for all workspaces", people.get_wide_token,
          {200: Token}, everywhere=True),
    Route("DELETE", "/v1/tokens/{token_id}", "admin", "Revoke a token for all workspaces", people.revoke_wide_token,
          {204: None}, everywhere=True),
    Route("GET", "/v1/audit", "admin", "List who did what everywhere, newest first", audit.list_whole_audit,
          {200: AuditPage}, query=WholeAuditQuery, everywhere=True, also=(audit.JSON_LINES,),
          problems=(404,)),
    Route("GET", "/v1/whoami", "viewer", "Say who is asking", people.whoami, {200: Whoami}),
    Route("POST", "/v1/session", None, "Sign a browser in", people.sign_in, {200: Whoami}, body=SignIn,
          problems=(401, 403, 429, 503)),
    Route("DELETE", "/v1/session", "viewer", "Sign a browser out", people.sign_out, {204: None}),
    Route("GET", "/healthz", None, "Say whether the process is up", catalog.healthz, {200: Up}),
    Route("GET", "/readyz", None, "Say whether the daemon takes work", catalog.readyz, {200: Ready}, problems=(503,)),
    Route("GET", "/metrics", "admin", "Give figures for Prometheus", catalog.metrics,
          {200: Text("text/plain")}, everywhere=True),
    Route("GET", "/openapi.json", "viewer", "Give this document", catalog.openapi, {200: Document}),
    Route("GET", "/docs", "viewer", "Show this interface as a page", catalog.docs, {200: Text("text/html")}),
)  # fmt: skip
"""Every route there is."""
