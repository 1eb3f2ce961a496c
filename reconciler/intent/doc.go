// Package intent reads what people ask for: the YAML files under models/,
// gates/ and fleets/, and the server's configuration.
//
// [Parse] takes every file of one tree and returns the [delivery.Intent] with
// defaults filled, or all complaints at once, sorted by place. A complaint is
// one line that an editor can jump to:
//
//	gates/night.yaml:12:14: checks[0].min: want 0 to 1, got 1.4
//
// Reading is strict, so that nothing in a file is ever ignored. Unknown and
// duplicate keys, missing units, text where a number belongs, values out of
// range, references to what is not there, YAML aliases, merge keys and tags,
// a second document, a byte order mark, symbolic links and files over
// [MaxFileSize] are all complaints. What AOB knows and cannot do so far is
// refused with "not yet".
//
// The types in package delivery carry the rules in struct tags, so the decoder,
// the JSON Schema ([Schema]) and the reference manual have one source. Rules
// between fields stand in model.go, gate.go, fleet.go and server.go; rules
// between files in join.go.
//
// [Cache] keeps what was parsed by path and blob hash, so that a push parses
// the files it changed and joins the rest.
//
// [FormatRelease] and [FormatQuarantine] write the two kinds of file that AOB
// itself commits.
//
// The package is pure: no file, clock, logger or context. Its input is hostile;
// nothing in it makes the package panic or take more than a bounded time.
package intent
