package main

// This file prints results for a job of GitHub Actions: annotations on the lines that they are about, as workflow
// commands on the standard output, and a summary of the job in Markdown. See
// https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// formatGitHub is the output format for a job of GitHub Actions.
const formatGitHub = "github"

// summaryVariable names the file of the job's summary.
const summaryVariable = "GITHUB_STEP_SUMMARY"

// noEvidence ends each summary.
const noEvidence = "\nThis is no evidence: only an AOB server signs what its gates judge.\n"

// An annotation is shown in the job's log and on the pull request's files.
type annotation struct {
	level        string // error, warning or notice
	file         string // relative to the repository; "" for none
	line, column int    // from 1; 0 for none
	title, text  string
}

// command returns the workflow command that makes the annotation, on one line.
func (a annotation) command() string {
	var properties []string
	add := func(name, value string) {
		if value != "" {
			properties = append(properties, name+"="+commandProperty.Replace(delivery.Terminal(value)))
		}
	}
	number := func(name string, n int) {
		if n > 0 {
			add(name, fmt.Sprint(n))
		}
	}
	add("file", a.file)
	number("line", a.line)
	number("col", a.column)
	add("title", a.title)
	return fmt.Sprintf("::%s %s::%s", a.level, strings.Join(properties, ","),
		commandText.Replace(delivery.Terminal(a.text)))
}

// The runner undoes these escapes. It also takes ##[ for the begin of a command, anywhere in a line.
var (
	commandText     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", "##[", "## [")
	commandProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C", "##[", "## [")
)

// printJob prints annotations, and adds Markdown to the job's summary. Outside of a job there is no summary, and the
// Markdown is printed.
func printJob(out io.Writer, list []annotation, markdown string) (err error) {
	var text strings.Builder
	for _, a := range list {
		text.WriteString(a.command() + "\n")
	}
	file := os.Getenv(summaryVariable)
	if file == "" {
		text.WriteString(markdown)
	}
	if _, err := io.WriteString(out, text.String()); err != nil || file == "" {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write the job's summary: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.WriteString(f, markdown+noEvidence)
	return err
}

// job returns a validation for a job.
func (v validation) job() (list []annotation, markdown string) {
	var b strings.Builder
	fmt.Fprintf(&b, "### aob validate\n\n%s, %s, %s: %s.\n", delivery.Count(v.Models, "model"),
		delivery.Count(v.Gates, "gate"), delivery.Count(v.Fleets, "fleet"), complaints(len(v.Complaints)))
	if len(v.Complaints) > 0 {
		b.WriteString("\n| where | what is wrong |\n| --- | --- |\n")
	}
	for _, c := range v.Complaints {
		text := c.Text
		if c.Path != "" {
			text = c.Path + ": " + text
		}
		list = append(list, annotation{level: "error", file: c.File, line: c.Line, column: c.Column,
			title: "aob validate", text: text})
		where := c.File
		if c.Line > 0 {
			where = fmt.Sprintf("%s:%d", c.File, c.Line)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", delivery.Markdown(where), delivery.Markdown(text))
	}
	for _, n := range v.Notes {
		list = append(list, annotation{level: "notice", title: "aob validate", text: n})
		fmt.Fprintf(&b, "\n%s\n", delivery.Markdown(n))
	}
	return list, b.String()
}

// planJob returns a plan for a job.
func planJob(p web.Plan) (list []annotation, markdown string) {
	var lines []string
	for line := range strings.Lines(p.Text) {
		lines = append(lines, strings.TrimRight(line, "\n"))
	}
	for _, n := range p.Notices {
		list = append(list, annotation{level: "warning", title: "aob plan", text: n})
	}
	return list, "### aob plan\n\n" + delivery.MarkdownCode(lines...)
}

func complaints(n int) string {
	if n == 0 {
		return "no complaint"
	}
	return delivery.Count(n, "complaint")
}
