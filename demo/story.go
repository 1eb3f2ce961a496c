package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Changes of the model's file. The first training is too short for a good model, the second is long enough, and the
// third hardly learns anything, so the verdicts of the gates do not depend on the seed.
const (
	initialEpochs = "epochs: 12" // as written by aob init
	fewEpochs     = "epochs: 5"
	manyEpochs    = "epochs: 24"
	initialRate   = "lr: 4e-3"
	tinyRate      = "lr: 1e-6"
)

// run runs all chapters.
func (s *story) run(ctx context.Context) error {
	if err := s.prepare(ctx, nil); err != nil {
		return err
	}

	s.chapter("PR 1: a first model, trained briefly")
	if err := s.release(ctx, 1, "first-model", "shapes: a first model", replace(initialEpochs, fewEpochs)); err != nil {
		return err
	}
	s.chapter("PR 2: the same model, trained longer")
	if err := s.release(ctx, 2, "train-longer", "shapes: train longer", replace(fewEpochs, manyEpochs)); err != nil {
		return err
	}
	s.chapter("PR 3: a model made worse")
	third, err := s.propose(ctx, "worse", "shapes: a much lower learning rate", replace(manyEpochs, fewEpochs,
		initialRate, tinyRate))
	if err != nil {
		return err
	}
	if err := s.waitRefused(ctx, third); err != nil {
		return err
	}

	s.chapter("git revert: back to version 1")
	if err := s.revert(ctx, 1); err != nil {
		return err
	}
	return s.ending(ctx)
}

// release proposes a change of the model's file, and waits until the fleet runs the version that comes of it.
func (s *story) release(ctx context.Context, version int, branch, subject string, change edit) error {
	p, err := s.propose(ctx, branch, subject, change)
	if err != nil {
		return err
	}
	if err := s.watch(ctx, p, delivery.CheckSuccess); err != nil {
		return err
	}
	if version > 1 {
		if err := s.showDiff(ctx, branch); err != nil {
			return err
		}
	}
	if err := s.merge(ctx, p); err != nil {
		return err
	}
	return s.fleet(ctx, version)
}

// prepare checks the tools, creates the repository and the dataset, and starts the server and the agents. account adds
// an account to the server's configuration; it may be nil.
func (s *story) prepare(ctx context.Context, account func() (string, error)) error {
	s.chapter("Setup on one machine")
	if err := s.step("tools", func() (string, error) { return s.tools(ctx) }); err != nil {
		return err
	}
	if err := s.step("aob init", func() (string, error) {
		if err := os.RemoveAll(s.dir); err != nil {
			return "", err
		}
		_, err := s.aob(ctx, "init", s.worldDir())
		return "an intent repository and a dataset of shapes in " + short(s.worldDir()), err
	}); err != nil {
		return err
	}
	if account != nil {
		if err := s.step("account", account); err != nil {
			return err
		}
	}
	if err := s.step("aob serve", func() (string, error) {
		return "running with the local forge", s.startServer(ctx)
	}); err != nil {
		return err
	}
	return s.step("aob-agent", func() (string, error) {
		for i := 1; i <= 3; i++ {
			if err := s.startAgent(fmt.Sprintf("robot-%d", i)); err != nil {
				return "", err
			}
		}
		return "running for three devices of one fleet", nil
	})
}

// An edit changes the text of the model's file.
type edit func(text string) (string, error)

// replace takes alternating old and new texts.
func replace(oldnew ...string) edit {
	return func(text string) (string, error) {
		for pair := range slices.Chunk(oldnew, 2) {
			if !strings.Contains(text, pair[0]) {
				return "", fmt.Errorf("models/shapes.yaml has no %q", pair[0])
			}
			text = strings.Replace(text, pair[0], pair[1], 1)
		}
		return text, nil
	}
}

// A proposal is a pull request.
type proposal struct {
	branch string
	number int
}

// propose pushes a branch with a change of the model's file.
func (s *story) propose(ctx context.Context, branch, subject string, change edit) (proposal, error) {
	p := proposal{branch: branch}
	err := s.step("git push "+branch, func() (string, error) {
		if err := s.gits(ctx, "fetch --quiet --prune", "checkout --quiet -B "+branch+" origin/main"); err != nil {
			return "", err
		}
		path := filepath.Join(s.cloneDir(), "models", "shapes.yaml")
		before, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		after, err := change(string(before))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(after), 0o644); err != nil {
			return "", err
		}
		diff, err := s.git(ctx, "diff", "-U0")
		if err != nil {
			return "", err
		}
		if _, err := s.git(ctx, "commit", "--quiet", "-am", subject); err != nil {
			return "", err
		}
		if err := s.gits(ctx, "push --quiet -u origin "+branch); err != nil {
			return "", err
		}
		p.number, err = s.waitForPR(ctx, branch)
		return fmt.Sprintf("PR #%d: %s", p.number, oneLine(diff)), err
	})
	return p, err
}

var changed = regexp.MustCompile(`(?m)^[-+] .*$`)

// oneLine returns the changed lines of a diff on one line.
func oneLine(diff string) string {
	lines := changed.FindAllString(diff, -1)
	for i, l := range lines {
		lines[i] = l[:1] + " " + strings.TrimSpace(l[1:])
	}
	return strings.Join(lines, "  ")
}

// waitRefused waits until a pull request is refused, and checks that it cannot be merged.
func (s *story) waitRefused(ctx context.Context, p proposal) error {
	if err := s.watch(ctx, p, delivery.CheckFailure); err != nil {
		return err
	}
	return s.step("aob pr merge", func() (string, error) {
		out, err := s.aob(ctx, "pr", "merge", fmt.Sprint(p.number))
		if err == nil {
			return "", fmt.Errorf("the refused PR #%d was merged: %s", p.number, out)
		}
		return "refused, as expected; the fleet stays on version 2", nil
	})
}

func (s *story) merge(ctx context.Context, p proposal) error {
	return s.step(fmt.Sprintf("aob pr merge %d", p.number), func() (string, error) {
		_, err := s.aob(ctx, "pr", "merge", fmt.Sprint(p.number))
		return "merged into main", err
	})
}

// showDiff prints the diff of the release file, which a reviewer sees.
func (s *story) showDiff(ctx context.Context, branch string) error {
	if _, err := s.git(ctx, "fetch", "--quiet"); err != nil {
		return err
	}
	diff, err := s.git(ctx, "diff", "-U0", "origin/main...origin/"+branch, "--", "models/shapes.release.yaml")
	if err != nil {
		return err
	}
	s.printLines("diff of models/shapes.release.yaml for the reviewer", strings.Split(strings.TrimSpace(diff),
		"\n")[4:], 48)
	return nil
}

// revert rolls back with git revert, and checks that nothing is trained or downloaded for that.
func (s *story) revert(ctx context.Context, version int) error {
	before, err := s.costs(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := s.step("git revert", func() (string, error) {
		if err := s.gits(ctx, "fetch --quiet", "checkout --quiet -B main origin/main", "revert --no-edit -m 1 HEAD",
			"push --quiet origin main"); err != nil {
			return "", err
		}
		start = time.Now()
		return "the merge of PR 2 is reverted on main", nil
	}); err != nil {
		return err
	}
	if err := s.fleet(ctx, version); err != nil {
		return err
	}
	took := time.Since(start)
	after, err := s.costs(ctx)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the rollback trained or downloaded something: before %+v, after %+v", before, after)
	}
	s.printStep("", fmt.Sprintf("%.1fs after the push all devices serve version %d: nothing was trained, 0 bytes of "+
		"bundles were downloaded", took.Seconds(), version), 0)
	return nil
}
