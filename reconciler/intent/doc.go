// Package intent reads what people ask for: the YAML files under models/,
// gates/ and fleets/, and the server's configuration.
//
// [Parse] takes every file of one tree and returns the [delivery.Intent] with defaults filled, or all complaints at
// once, sorted by place. A complaint is one line that an editor can jump to:
//
//	gates/night.yaml:12:14: checks[0].min: want 0 to 1, got 1.4
//
// Reading is strict: nothing in a file is ignored. Unknown and duplicate keys, missing units, text where a number
// belongs, values out of range, references to missing files, YAML aliases, merge keys and tags, a second document, a
// byte order mark, symbolic links and files over [MaxFileSize] are all complaints. A key or value that AOB does not
// support yet has a complaint that says so.
//
// The types in package delivery have the rules in struct tags, from which come the decoder, the JSON Schemas ([Schema])
// and the writer of releases. Rules between fields stand in model.go, gate.go, fleet.go and server.go; rules between
// files in join.go.
//
// [Cache] keeps parsed files by path and hash, so that a push parses only the files that it changed.
//
// [FormatRelease] and [FormatQuarantine] write the two kinds of file that AOB commits.
//
// The package is pure: no file, clock, logger or context. Its input is hostile:
// none makes the package panic or take more than a bounded time.
package intent
