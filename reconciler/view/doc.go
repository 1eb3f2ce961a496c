// Package view answers the API of the commands.
//
// [Source] answers from a [Snapshot], which is what the last turn observed and planned. [Requests] holds the
// experiments, comparisons and questions about gates that people have requested, until the loop has worked on them.
//
// The package decides nothing: it turns the reports of package plan into the types of package web. A snapshot never
// changes, so answers do not wait for a turn.
package view
