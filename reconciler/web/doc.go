// Package web is how people and machines reach aob serve over HTTP: the API of
// the aob commands on a Unix socket, and the site that devices, forges and
// Prometheus reach.
//
// # The API
//
// [API] answers on a socket that only its owner may open ([ListenSocket]).
// Everything is JSON, but for logs:
//
//	GET  /v1/status
//	GET  /v1/prs
//	GET  /v1/prs/NUMBER
//	POST /v1/prs/NUMBER/merge     {"head": "4f1c09d2a3"}
//	POST /v1/prs/NUMBER/adopt     {"head": "4f1c09d2a3"}
//	POST /v1/prs/NUMBER/ask       {"text": "/aob run 3f9c2a10"}
//	POST /v1/prs/NUMBER/recheck
//	GET  /v1/explain/KIND/ID      KIND is pr, commit, model or device
//	GET  /v1/plan
//	GET  /v1/runs/RUN/log?offset=BYTES
//	GET  /healthz
//
// An error is {"error": what is wrong, "hint": what to do}. 404 is something
// that there is not, 409 something that a person must settle, 503 something to
// ask again after Retry-After seconds.
//
// What the API shows and does is a [Source]; a [Client] is the same interface at
// the other end.
//
// # The site
//
// [Site] puts together what is reached from other machines, over TLS or on a
// loopback address ([Listen]):
//
//	/fleet/v1/…   what devices read and report
//	/v2/…         bundles, as an OCI registry
//	/webhook      a forge says that something happened; see [Webhook]
//	/healthz      200 as long as the process answers
//	/readyz       200 once the loop has seen the world, else 503
//
// # Limits
//
// Every listener has [Limits]: how long a request and an answer may take, how
// large they may be, and how many connections there are. When there are too
// many, the connection that has sent or read nothing for longest is closed. The
// socket has limits of its own, and half of the files that the process may open
// are left to the loop, so that both go on while the site is full.
//
// # Metrics
//
// [Metrics] counts what the loop and the handlers tell it, in a registry of its
// own. /metrics is on an address of its own, not on the site: it is for operators.
package web
