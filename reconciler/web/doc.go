// Package web serves aob serve over HTTP: the API for the aob commands on a Unix socket, and the site
// for devices, forges and Prometheus.
//
// # The API
//
// [API] serves a socket that only its owner can open ([ListenSocket]). Everything is JSON except logs:
//
//	GET    /v1/status?limit=NUMBER&after=CURSOR&full=BOOL
//	GET    /v1/watch?limit=NUMBER         an [Update] a line, each time that something changes
//	GET    /v1/prs?limit=NUMBER&after=CURSOR&full=BOOL&branch=NAME
//	GET    /v1/prs/NUMBER
//	POST   /v1/prs/NUMBER/merge           {"head": "4f1c09d2a3"}
//	POST   /v1/prs/NUMBER/adopt           {"head": "4f1c09d2a3"}
//	POST   /v1/prs/NUMBER/ask             {"text": "/aob run 3f9c2a10"}
//	POST   /v1/prs/NUMBER/recheck
//	GET    /v1/explain/KIND/ID?limit=NUMBER  KIND is pr, commit, model or device
//	GET    /v1/plan
//	GET    /v1/runs/RUN/log?offset=BYTES  text
//	GET    /v1/trainings?limit=NUMBER&after=CURSOR&full=BOOL&model=NAME&from=KIND&sort=ORDER
//	GET    /v1/spends
//	GET    /v1/trials
//	POST   /v1/trials                     a [TrialRequest]
//	GET    /v1/trials/ID
//	DELETE /v1/trials/ID
//	GET    /v1/models/MODEL/release?version=NUMBER
//	GET    /v1/compare?a=MODEL&b=MODEL
//	GET    /v1/gates/GATE/power
//	DELETE /v1/devices/FLEET/DEVICE
//	GET    /v1/gc?limit=NUMBER&after=CURSOR&kind=KIND&all=BOOL
//	POST   /v1/gc
//	GET    /v2/                           bundles, as an OCI registry
//	GET    /healthz
//
// Lists are brief and have pages: next in an answer is the after of the next page. Without full, answers leave out the
// facts of texts, and most figures of releases.
//
// An error response is {"error": what is wrong, "hint": what to do}. Status 404 means that there is no such thing, 409
// that a person must act first, and 503 that the request can be repeated after Retry-After seconds.
//
// The data and actions behind the API are a [Source]. A [Client] implements the same interface on the
// other end of the socket.
//
// # The site
//
// [Site] combines what other machines reach, over TLS or on a loopback address ([Listen]):
//
//	/fleet/v1/   desired state and reports of devices; see package fleet
//	/v2/         bundles, as an OCI registry
//	/pictures/   pages of pictures; see [Pictures]
//	/webhook     notifications of a forge; see [Webhook]
//	/{$}         says what this is
//	/healthz     200 as long as the process responds
//	/readyz      200 once the loop has observed everything, else 503
//
// # Limits
//
// Every listener has [Limits]: how long a request and a response may take, how large they may be, and how many
// connections may be open. If there are too many, the connection that has sent or read nothing for the longest time is
// closed. The socket has its own limits, and half of the file descriptors of the process are reserved for the loop, so
// that both keep working while the site is overloaded.
//
// # Metrics
//
// [Metrics] counts events of the loop and the handlers in its own registry. /metrics has its own
// address and is not part of the site, because it is for operators only.
package web
