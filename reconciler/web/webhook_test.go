package web

import (
	"testing"
	"time"
)

// Anybody can send webhooks with a wrong signature: they do not fill the log.
func TestRefusedWebhooksGetOneLineAMinute(t *testing.T) {
	var r refusals
	lines, counted := 0, 0
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for range 200 {
		if n, log := r.add(at); log {
			lines, counted = lines+1, counted+n
		}
		at = at.Add(time.Second)
	}
	if n, log := r.add(at.Add(time.Minute)); log {
		lines, counted = lines+1, counted+n
	}
	if lines != 5 || counted != 201 {
		t.Errorf("%d lines about %d webhooks, want 5 about 201", lines, counted)
	}
}
