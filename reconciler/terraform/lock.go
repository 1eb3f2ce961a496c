package terraform

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// This file is about the lock of a state in a bucket: a file beside the state, which Terraform makes before it works
// and removes afterwards. A Terraform that was killed leaves it.

// A stateLock is what Terraform says of a lock that another process has.
type stateLock struct {
	id, path, who, operation string
	created                  time.Time
}

// lockAge is the age from which on a lock is of nobody who is still there. Nothing that AOB lets Terraform do takes so
// long.
const lockAge = 2 * time.Hour

// stale reports whether no process has the lock any more. A state is one stack's alone, and none of its processes is
// left on this machine when it is asked.
func (l stateLock) stale(now time.Time) bool {
	host, err := os.Hostname()
	return err == nil && strings.HasSuffix(l.who, "@"+host) || !l.created.IsZero() && now.Sub(l.created) > lockAge
}

// String says who has the lock.
func (l stateLock) String() string {
	text := "the state " + delivery.PlainText(l.path, 200) + " is locked by " + delivery.PlainText(l.who, 100)
	if l.operation != "" {
		text += " for " + strings.ToLower(strings.TrimPrefix(delivery.PlainText(l.operation, 60), "OperationType"))
	}
	if !l.created.IsZero() {
		text += fmt.Sprintf(" since %s, and is taken over at %s", l.created.UTC().Format(time.DateTime),
			l.created.Add(lockAge).UTC().Format(time.DateTime))
	}
	return text + "; two servers must not have the same controller"
}

var (
	lockField = regexp.MustCompile(`(?m)^[\s│]*(ID|Path|Operation|Who|Created):[ \t]+(\S.*?)\s*$`)
	lockID    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// lockIn returns the lock that an error of Terraform is about.
func lockIn(err error) (l stateLock, held bool) {
	if err == nil || !strings.Contains(err.Error(), "Error acquiring the state lock") {
		return l, false
	}
	for _, m := range lockField.FindAllStringSubmatch(err.Error(), -1) {
		switch value := m[2]; m[1] {
		case "ID":
			l.id = value
		case "Path":
			l.path = value
		case "Operation":
			l.operation = value
		case "Who":
			l.who = value
		case "Created":
			l.created, _ = time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", value)
		}
	}
	return l, lockID.MatchString(l.id)
}

// heldLock is lockIn for an error of a step.
func heldLock(err error) (stateLock, bool) {
	var step stepError
	if !errors.As(err, &step) {
		return stateLock{}, false
	}
	return lockIn(step.err)
}

// lockWait is how long Terraform waits for the lock. That of a state in a bucket is of a process that was killed, or of
// one that has no business there.
func (s *Stack) lockWait() string {
	if s.backend != nil {
		return "0s"
	}
	return "30s"
}
