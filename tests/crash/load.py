"""Clients that load a daemon until it dies, and note what they were told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from random import Random
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any

import httpx2

from tests.conftest import Daemon
from tests.crash.ledger import Decision, Ledger, Sent, Stop, Submission
from tests.crash.plans import Maker

NO_TLS = SSLContext(PROTOCOL_TLS_CLIENT)
"""Each client would else read the certificates of all authorities, which takes longer than all that it asks for."""
MODES = ("graceful", "now", "kill")


class Dead(Exception):
    """The daemon is gone."""


class Refused(Dead):
    """It is about to go, and said so: nothing was done."""


class Client:
    """One client: every request and its answer are in the ledger. Raises `Dead` where the daemon died."""

    def __init__(self, daemon: Daemon, ledger: Ledger, maker: Maker) -> None:
        self._ledger, self._maker, self._random = ledger, maker, maker.random
        self._root = daemon.path("")
        self._http = httpx2.Client(
            base_url=daemon.url,
            headers={"Authorization": f"Bearer {daemon.token}"},
            timeout=30,
            trust_env=False,
            verify=NO_TLS,
        )

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def until_dead(self) -> Iterator[None]:
        """What is done inside ends, without an error, when the daemon dies."""
        with suppress(Dead):
            yield

    def _ask(self, method: str, path: str, allowed: tuple[int, ...], **options: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, self._root + path, **options)
        except httpx2.TransportError as error:
            raise Dead from error
        if answer.status_code == 503:
            raise Refused
        if answer.status_code not in allowed:
            self._ledger.complain(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        return answer

    # --- what it does ---

    def act(self) -> None:
        """Any one thing."""
        choice = self._random.random()
        if choice < 0.45:
            self.submit(self._maker.submission())
        elif choice < 0.55:
            self.submit_again()
        elif choice < 0.7:
            self.stop_any()
        elif choice < 0.8:
            self.answer_approvals()
        elif choice < 0.87:
            self.send_signals()
        elif choice < 0.9:
            self.redeliver()
        else:
            self.look()

    def submit(self, body: dict[str, Any]) -> None:
        """A run, now and then with an idempotency key, delayed, or waited for."""
        number = self._ledger.number()
        body = {"kind": "agent", "goal": f"run {number}", "tags": {"n": str(number)}, **body}
        key = f"key-{number}" if self._random.random() < 0.4 else None
        if self._random.random() < 0.15:
            body["run_at"] = (datetime.now(UTC) + timedelta(seconds=self._random.random())).isoformat()
        submission = Submission(number, body, key)
        self._ledger.submissions.append(submission)
        self.post(submission)

    def submit_again(self) -> None:
        """A key that was used before: the same run is the answer, or the first one if none came before."""
        keyed = [each for each in list(self._ledger.submissions) if each.key is not None]
        if keyed:
            self.post(self._random.choice(keyed))

    def post(self, submission: Submission) -> None:
        """Asks for a run, for the first time or again."""
        headers = {} if submission.key is None else {"Idempotency-Key": submission.key}
        query = {"wait": "0.1"} if self._random.random() < 0.1 else {}
        known = set(submission.run_ids)
        submission.unanswered += 1
        try:
            answer = self._ask("POST", "runs", (200, 202), headers=headers, json=submission.body, params=query)
        except Refused:
            submission.unanswered -= 1
            raise
        submission.unanswered -= 1
        if answer.status_code in (200, 202):
            submission.run_ids.add(answer.json()["run"]["id"])
            if known and (answer.status_code, answer.headers.get("idempotency-replayed")) != (200, "true"):
                self._ledger.complain(f"{submission.key} was answered as if it were new: {answer.status_code}")

    def stop_any(self) -> None:
        """Stops one of the younger runs, or one that was stopped before."""
        known = self._ledger.run_ids()[-30:]
        if known:
            mode, children = self._random.choice(MODES), self._random.random() < 0.8
            self.stop(self._random.choice(known), mode, children)

    def stop(self, run_id: str, mode: str = "graceful", children: bool = True) -> None:
        stop = Stop(run_id, children)
        self._ledger.stops.append(stop)
        answer = self._ask("POST", f"runs/{run_id}/stop", (200, 202), json={"mode": mode, "children": children})
        if answer.status_code in (200, 202):
            said = answer.json()
            stop.status, stop.stopped = said["status"], said["stopped"]
            if (answer.status_code == 202) != said["stopped"]:
                self._ledger.complain(f"a stop was answered {answer.status_code}: {said}")

    def answer_approvals(self) -> None:
        """Answers what is asked: mostly yes, with a number."""
        page = self._ask("GET", "approvals", (200,), params={"status": "pending", "limit": 20}).json()
        for approval in page["items"]:
            approve = self._random.random() < 0.85
            data = {"number": self._ledger.number()}
            decision = Decision(approval["id"], approve, data)
            self._ledger.decisions.append(decision)
            said = {"decision": "approve" if approve else "deny", "data": data}
            answer = self._ask("POST", f"approvals/{approval['id']}", (200, 409), json=said)
            decision.status = answer.status_code

    def send_signals(self) -> None:
        """Sends a number to some runs that wait for something."""
        page = self._ask("GET", "runs", (200,), params={"status": "waiting", "limit": 50}).json()
        for run in page["items"]:
            if "signal:go" in (run["pause"] or {}).get("facts", ()):
                sent = Sent(run["id"], self._ledger.number(), time.monotonic())
                self._ledger.signals.append(sent)
                path = f"runs/{run['id']}/signals/go"
                answer = self._ask("POST", path, (202, 409), json={"data": sent.number})
                sent.status, sent.answered_at = answer.status_code, time.monotonic()

    def register(self, url: str) -> None:
        """A hook of our own, in place of one that is there."""
        body = {"name": "registered", "point": "post_run", "url": url, "targets": ["command"]}
        if self._ask("POST", "hooks", (201, 409), json=body).status_code == 409:
            self._ask("DELETE", "hooks/registered", (204,))
            self._ask("POST", "hooks", (201,), json=body)

    def redeliver(self) -> None:
        """Has one of the latest deliveries sent again."""
        page = self._ask("GET", "hooks/deliveries", (200,), params={"point": "post_run", "limit": 20}).json()
        if page["items"]:
            delivery = self._random.choice(page["items"])
            allowed = (202, 409) if delivery["hook_id"] else (202,)  # A registered hook may be gone.
            self._ask("POST", f"hooks/deliveries/{delivery['id']}/redeliver", allowed)

    def look(self) -> None:
        """Reads, as somebody always does."""
        known = self._ledger.run_ids()
        if known:
            run_id = self._random.choice(known)
            for tail in ("", "/events", "/steps", "/why"):
                self._ask("GET", f"runs/{run_id}{tail}", (200,))


class Load:
    """Several clients and a reader of the feed, until the daemon dies or `close`."""

    def __init__(self, daemon: Daemon, ledger: Ledger, effects: str, seed: str, clients: int = 3) -> None:
        self._daemon, self._ledger = daemon, ledger
        self._over = threading.Event()
        self._pace = threading.Event()
        self._threads = [threading.Thread(target=self._guarded, args=(self._follow,), daemon=True)]
        for number in range(clients):
            maker = Maker(effects, Random(f"{seed}/{number}"))
            self._threads.append(threading.Thread(target=self._guarded, args=(self._act, maker), daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the clients. The reader ends with the daemon."""
        self._over.set()
        for thread in self._threads[1:]:
            thread.join(40)

    def join(self) -> None:
        """The daemon is dead: waits until all have noticed."""
        self._over.set()
        for thread in self._threads:
            thread.join(40)
            if thread.is_alive():
                self._ledger.complain("a client hangs although the daemon is dead")

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Dead:
            return
        except Exception as error:
            self._ledger.complain(f"a client failed: {error!r}")
            raise

    def _act(self, maker: Maker) -> None:
        client = Client(self._daemon, self._ledger, maker)
        try:
            while not self._over.is_set():
                client.act()
                self._pace.wait(maker.random.expovariate(60))
        finally:
            client.close()

    def _follow(self) -> None:
        """The feed, from where the last life broke off."""
        seen = self._ledger.seen
        last = str(seen[-1]["position"]) if seen else None
        headers = {"Authorization": f"Bearer {self._daemon.token}", "Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        url = self._daemon.url + self._daemon.path("events")
        data, type = "", ""
        with (
            suppress(httpx2.TransportError),
            httpx2.Client(headers=headers, timeout=60, trust_env=False, verify=NO_TLS) as http,
            http.stream("GET", url, params={"after": "0"}) as stream,
        ):
            if stream.status_code != 200:
                if stream.status_code != 503:
                    stream.read()
                    self._ledger.complain(f"the feed after {last} was answered {stream.status_code}: {stream.text}")
                return
            for line in stream.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    type = value
                elif field == "data":
                    data = value
                elif not line and data:
                    if type != "bye":
                        seen.append(json.loads(data))
                    data = ""
