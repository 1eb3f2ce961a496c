// Package serve serves a detector over HTTP.
//
// An [API] is the front. It has three ways to ask a model, and they give the same boxes:
//
//	/v1/detect            an image in, boxes out
//	/v2/...               the Open Inference Protocol V2 (KServe, Triton), with its extension for binary tensors
//	/infer/..., /{p}/{v}  the requests and answers of Roboflow's inference server
//
// openapi.json describes all of them. The front holds no model and opens no image: a [Model] does that in another
// process (package detect), so a request that crashes a model ends that process and not the front.
//
// What a caller can make the front hold in memory is bounded: the number of connections, of requests at a time, the
// size of a body, and the bytes of all bodies together. Who comes when it is full is told to come again (status 429).
//
// # Files
//
// api.go has the routes, the limits and the errors; api_v1.go, api_v2.go and api_roboflow.go one API each;
// api_json.go reads JSON; api_listen.go listens and drains; facts.go reads what callers may know of a bundle.
package serve
