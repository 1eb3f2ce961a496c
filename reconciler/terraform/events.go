package terraform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// events reads what Terraform writes with -json: one event a line. It tells what is being done, and keeps the errors.
type events struct {
	log  io.Writer
	tell func(text string)

	rest   []byte // of a line that is not complete
	errors []string
}

// The bounds of an event, and of the errors that are kept.
const (
	maxEvent  = 256 << 10
	maxErrors = 20
)

// Write implements io.Writer.
func (e *events) Write(p []byte) (int, error) {
	e.rest = append(e.rest, p...)
	for {
		line, rest, whole := bytes.Cut(e.rest, []byte("\n"))
		if !whole {
			if len(e.rest) > maxEvent {
				e.rest = nil
			}
			return len(p), nil
		}
		if err := e.event(line); err != nil {
			return 0, err
		}
		e.rest = rest
	}
}

func (e *events) event(line []byte) error {
	var event struct {
		Type       string `json:"type"`
		Message    string `json:"@message"`
		Diagnostic struct {
			Severity, Summary, Detail string
		} `json:"diagnostic"`
	}
	if json.Unmarshal(line, &event) != nil {
		_, err := fmt.Fprintf(e.log, "%s\n", line)
		return err
	}
	d := event.Diagnostic
	switch event.Type {
	case "apply_start", "apply_progress", "apply_complete", "apply_errored":
		e.tell(delivery.PlainText(event.Message, 200))
	case "diagnostic":
		if d.Severity == "error" && len(e.errors) < maxErrors {
			e.errors = append(e.errors, strings.TrimSpace("Error: "+d.Summary+"\n\n"+d.Detail))
		}
	}
	_, err := fmt.Fprintln(e.log, strings.TrimSpace(event.Message+"\n"+d.Detail))
	return err
}

// explain returns the error of a command, with the errors that it told of.
func (e *events) explain(err error) error {
	if err == nil || len(e.errors) == 0 {
		return err
	}
	return errors.New(strings.Join(e.errors, "\n"))
}
