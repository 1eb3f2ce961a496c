package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func (s *story) color(code, text string) string {
	if !s.terminal {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// chapter prints a heading.
func (s *story) chapter(title string) { fmt.Fprintf(s.out, "\n%s\n", s.color("1", title)) }

// printStep prints a completed step with its duration.
func (s *story) printStep(what, text string, took time.Duration) {
	s.clear()
	duration := ""
	if took > 0 {
		duration = fmt.Sprintf("%.1fs", took.Seconds())
	}
	fmt.Fprintf(s.out, "  %7s  %-18s %s\n", duration, what, text)
}

// progress prints a line that the next output replaces. It prints nothing if the output is not a terminal.
func (s *story) progress(what, text string) {
	if s.terminal {
		fmt.Fprintf(s.out, "\r\x1b[K  %7s  %-18s %s", "…", what, s.color("2", text))
	}
}

func (s *story) clear() {
	if s.terminal {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
}

// step runs one step and prints its result and duration.
func (s *story) step(what string, do func() (string, error)) error {
	start := time.Now()
	s.progress(what, "")
	text, err := do()
	if err != nil {
		s.clear()
		return fmt.Errorf("%s: %w", what, err)
	}
	s.printStep(what, text, time.Since(start))
	return nil
}

// printLines prints at most n lines of a text.
func (s *story) printLines(title string, lines []string, n int) {
	s.printStep("", title+":", 0)
	for i, l := range lines {
		if i == n {
			fmt.Fprintf(s.out, "           … %d more lines\n", len(lines)-n)
			return
		}
		code := "0"
		switch {
		case strings.HasPrefix(l, "+"):
			code = "32"
		case strings.HasPrefix(l, "-"):
			code = "31"
		}
		fmt.Fprintf(s.out, "           %s\n", s.color(code, l))
	}
}

// short returns a path relative to the working directory, if it is below it.
func short(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
