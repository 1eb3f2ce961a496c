package terraform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// This file follows a trainer on an instance through what boot.sh copies into the bucket. The trainer may write there
// whatever it wants, so only files with these names are read, and no more of them than these sizes.

const bootLog = "boot.log" // what boot.sh says

// A brought is a file that is brought from the bucket.
type brought struct {
	name  string
	most  int64 // bytes
	tail  bool  // of a larger one, the end is enough; else it is left out
	heard bool  // of this attempt: a change of it is a sign of life
}

var (
	// telling are the files of an attempt that say how it goes, in boot/ATTEMPT/.
	telling = []brought{{trainerLog, 1 << 20, true, true}, {bootLog, 1 << 20, true, true}}
	// growing are files of the output that people look at while the trainer runs.
	growing = []brought{{"metrics.jsonl", 16 << 20, false, false}, {"log.txt", 4 << 20, true, false}}
	// lasting are the other files of the output.
	lasting = []brought{{"train.json", 1 << 20, false, false}, {"variant.json", 1 << 20, false, false},
		{"model.onnx", 8 << 30, false, false}, {"checkpoint", 32 << 30, false, false}}
)

// An exited is exit.json of boot.sh.
type exited struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// What boot.sh says of an end for which nobody but the trainer is the reason, and of an interruption.
const (
	exitedItself = "the trainer ended"
	exitedSpot   = "the spot instance was interrupted"
	exitedKilled = "the boot script was ended"
)

// exit reads how an attempt ended; fs.ErrNotExist while it has not.
func (m *AWS) exit(ctx context.Context, v EC2) (e exited, err error) {
	data, err := m.read(ctx, v.boot()+exitFile, 0, 4<<10)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(data, &e); err != nil {
		e = exited{Code: -1, Reason: "exit.json cannot be read"}
	}
	e.Reason = delivery.PlainText(e.Reason, 200)
	return e, nil
}

// boot returns the prefix of what an attempt tells.
func (e EC2) boot() string { return fmt.Sprintf("%sboot/%d/", e.Outputs, e.Attempt) }

func (m *AWS) read(ctx context.Context, key string, offset, most int64) ([]byte, error) {
	body, err := m.Objects.Read(ctx, key, "", offset)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, most))
}

// Look implements [Machine].
func (m *AWS) Look(ctx context.Context, req trainer.Request, attempt string) (Seen, error) {
	a := m.Account.filled()
	seen := Seen{Alive: true, Allowance: a.Boot, Silent: LostBoot}
	v, err := m.ofAttempt(attempt)
	if err != nil {
		return seen, err
	}
	exit, err := m.exit(ctx, v)
	if err == nil {
		seen.Alive = false
		seen.Ended = exit.explain(attempt)
	} else if errors.Is(err, fs.ErrNotExist) {
		seen.Alive, seen.Ended, err = m.running(ctx, v, attempt)
	}
	if err == nil {
		err = m.follow(ctx, req, v, attempt)
	}
	if seen.Unseen = err; err != nil {
		seen.Alive = true // a later look will tell
		return seen, nil
	}
	if !m.heard.IsZero() {
		seen.Heard, seen.Allowance, seen.Silent = m.heard, max(a.Silence, req.Heartbeat), LostSilent
	}
	return seen, nil
}

// running reports whether an instance that has not said how it ended still runs, and else why not.
func (m *AWS) running(ctx context.Context, v EC2, attempt string) (bool, error, error) {
	i, err := m.instance(ctx, v)
	switch {
	case err != nil:
		return true, nil, err
	case i == nil:
		may, err := m.mayAppear(attempt)
		return may, lostf(LostEnded, "the instance is gone"), err
	case i.Costs() || i.State == shuttingDown:
		return true, nil, nil
	}
	switch i.Why {
	case "Server.SpotInstanceTermination", "Server.SpotInstanceShutdown":
		return false, lostf(LostSpot, "%s", reasons[LostSpot]), nil
	case "Server.InsufficientInstanceCapacity":
		return false, lostf(LostCapacity, "%s", reasons[LostCapacity]), nil
	}
	text := reasons[LostEnded] + " before it had copied its output"
	if i.Why != "" {
		text += " (" + delivery.PlainText(i.Why, 80) + ")"
	}
	return false, lostf(LostEnded, "%s", text), nil
}

// explain returns why an attempt is lost; nil if its trainer ended by itself, which exit.json of the attempt says then.
func (e exited) explain(attempt string) error {
	switch {
	case e.Reason == exitedSpot:
		return lostf(LostSpot, "%s", e.Reason)
	case e.Reason == exitedKilled:
		return lostf(LostEnded, "%s before the trainer was done", reasons[LostEnded])
	case e.Reason != exitedItself:
		return lostf(LostBoot, "%s: %s", reasons[LostBoot], e.Reason)
	case e.Code == 125:
		return lostf(LostBoot, "%s: the image could not be fetched or started", reasons[LostBoot])
	case e.Code == 126:
		return delivery.Blockedf("run the trainer in a container, or have the server use the Python of the AMI",
			"the Python of the trainer's environment does not run on the instance")
	}
	status := exitStatus{Code: e.Code}
	if e.Code > 128 {
		status = exitStatus{Code: -1, Signal: syscall.Signal(e.Code - 128).String()}
	}
	return durable.WriteJSON(filepath.Join(attempt, exitFile), status)
}

// follow brings what has changed of the files that tell how a training goes.
func (m *AWS) follow(ctx context.Context, req trainer.Request, v EC2, attempt string) error {
	output := filepath.Join(req.Dir, outputDir)
	for _, b := range telling {
		if err := m.bring(ctx, v.boot()+b.name, filepath.Join(attempt, b.name), b); err != nil {
			return err
		}
	}
	for _, b := range growing {
		if err := m.bring(ctx, v.Outputs+b.name, filepath.Join(output, b.name), b); err != nil {
			return err
		}
	}
	// Last: it says that the rest is there.
	return m.bring(ctx, v.boot()+statusFile, filepath.Join(output, statusFile), brought{statusFile,
		delivery.MaxRunStatus, false, true})
}

// Collect implements [Machine].
func (m *AWS) Collect(ctx context.Context, req trainer.Request, attempt string) error {
	v, err := m.ofAttempt(attempt)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = m.follow(ctx, req, v, attempt)
	}
	if err != nil {
		return err
	}
	if status, err := readStatus(req.Dir, req.Mask()); err != nil || status.Phase != "done" {
		return nil // the next attempt finds the rest in the bucket
	}
	if err := stage(req, "download"); err != nil {
		return err
	}
	for _, b := range lasting {
		if err := m.bring(ctx, v.Outputs+b.name, filepath.Join(req.Dir, outputDir, b.name), b); err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a list.
var errEnough = errors.New("enough")

// bring copies an object to a file, if it is there and has changed since this process copied it.
func (m *AWS) bring(ctx context.Context, key, to string, b brought) error {
	size, version := int64(-1), ""
	err := m.Objects.List(ctx, key, func(found string, n int64, v string) error {
		if found == key { // the first, if it is there
			size, version = n, v
		}
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if size < 0 || m.versions[key] == version || size > b.most && !b.tail {
		return nil
	}
	body, err := m.Objects.Read(ctx, key, version, max(0, size-b.most))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if err := copyTo(to, io.LimitReader(body, b.most)); err != nil {
		return err
	}
	if m.versions == nil {
		m.versions = map[string]string{}
	}
	m.versions[key] = version
	if b.heard {
		m.heard = time.Now()
	}
	return nil
}

// copyTo writes a file, which appears whole.
func copyTo(to string, from io.Reader) error {
	part := to + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(part)
		return err
	}
	return durable.Rename(part, to)
}
