package words

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
)

// The chain from a commit to a device.
var chains = map[delivery.Code]sentence{
	code.ChainPull: func(v delivery.Values) string {
		return fmt.Sprintf("%s %s, by %s", PRs(v.PRs), v.Text, v.By)
	},
	code.ChainPullHead: func(v delivery.Values) string { return fmt.Sprintf("head of %s, for %s", v.Text, v.Branch) },
	code.ChainPullClosed: func(v delivery.Values) string {
		return fmt.Sprintf("%s, no longer open: %s", PRs(v.PRs), inner(v))
	},
	code.ChainCheck: func(v delivery.Values) string { return fmt.Sprintf("%s %s: %s", v.Outcome, v.Stage, inner(v)) },
	code.ChainHead: func(v delivery.Values) string {
		if len(v.Facts) > 0 {
			return fmt.Sprintf("head of %s: %s", v.Branch, inner(v))
		}
		return fmt.Sprintf("head of %s; it changed no release", v.Branch)
	},
	code.ChainNotOnMain: func(v delivery.Values) string {
		if len(v.Facts) > 0 {
			return fmt.Sprintf("%s: its state on %s is unknown: %s", v.Model, v.Branch, inner(v))
		}
		return fmt.Sprintf("%s: not on %s", v.Model, v.Branch)
	},
	code.ChainAuthored: func(v delivery.Values) string {
		if v.By == "" {
			return v.Text
		}
		return v.Text + ", by " + v.By
	},
	code.ChainOnBranch: func(v delivery.Values) string { return "on " + v.Branch },
	code.ChainAtCommit: func(v delivery.Values) string { return "at " + shortID(v.Commit) },

	code.ChainContent: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml: dataset %s; classes %s", v.Model, v.Dataset, strings.Join(v.Names, ", "))
	},
	code.ChainContentRemoved: func(v delivery.Values) string { return "models/" + v.Model + ".yaml is removed" },
	code.ChainNoTraining: func(v delivery.Values) string {
		return fmt.Sprintf("models/%s.yaml; no training statement says how bundle %s was made", v.Model,
			v.Bundle.Short())
	},
	code.ChainTrain: func(v delivery.Values) string {
		return fmt.Sprintf("%s, resolution %d, epochs %d, lr %g, seed %s", v.Text, v.Counts["pixels"],
			v.Counts["epochs"], v.Value, strings.Join(v.Names, ", "))
	},
	code.ChainData: func(v delivery.Values) string {
		var splits []string
		for _, split := range []string{"train", "valid", "test"} {
			if n, ok := v.Counts[split]; ok {
				splits = append(splits, fmt.Sprintf("%s %s", split, delivery.Count(n, "image")))
			}
		}
		text := v.Dataset
		if len(splits) > 0 {
			text += ": " + strings.Join(splits, ", ")
		}
		if v.Count > 0 {
			text += fmt.Sprintf("; %d left out of training, as they are in an eval set", v.Count)
		}
		return text
	},
	code.ChainFinding: func(v delivery.Values) string { return fmt.Sprintf("%s %s: %s", v.Stage, v.Error, v.Text) },
	code.ChainTrained: func(v delivery.Values) string {
		text := fmt.Sprintf("trained with %s, seed %d, by %s", v.Text, v.Seed, v.By)
		if v.Attempt > 1 {
			text += fmt.Sprintf(", %d attempts", v.Attempt)
		}
		if v.Lasts > 0 {
			text += ", in " + time.Duration(v.Lasts).Round(time.Second).String()
		}
		return text
	},
	code.ChainAskedBy:  func(v delivery.Values) string { return "first asked for by " + v.Text },
	code.ChainSeed:     seed,
	code.ChainSeedBest: func(v delivery.Values) string { return seed(v) + ", the best, which is the model" },
	code.ChainTraining: func(v delivery.Values) string {
		text := "training: " + v.Stage
		if v.Total > 0 {
			text += fmt.Sprintf(", epoch %d of %d", v.Count, v.Total)
		}
		if v.Attempt > 1 {
			text += fmt.Sprintf(", attempt %d", v.Attempt)
		}
		return text
	},
	code.ChainThresholds: func(v delivery.Values) string {
		return fmt.Sprintf("found on %s, which trains nothing, and added to bundle %s", v.EvalSet, v.Bundle.Short())
	},
	code.ChainThreshold: func(v delivery.Values) string {
		text := fmt.Sprintf("%s: from score %.4g", v.Class, v.Scores["score"])
		if v.Ask != "" {
			text += ", asked for " + v.Ask
		}
		text += fmt.Sprintf("; precision %.4f, recall %.4f", v.Scores["precision"], v.Scores["recall"])
		if v.Text != "" {
			text += "; " + v.Text
		}
		return text
	},
	code.ChainBundle: func(v delivery.Values) string {
		return fmt.Sprintf("the packaged model, %.1f MB", float64(v.Bytes)/1e6)
	},
	code.ChainBundleGone: fixed("the packaged model; the registry no longer holds it"),
	code.ChainScores: func(v delivery.Values) string {
		if v.EvalSet == "" {
			return "on " + delivery.Count(v.Images, "image")
		}
		return fmt.Sprintf("on %s, %s", v.EvalSet, delivery.Count(v.Images, "image"))
	},
	code.ChainFigure: func(v delivery.Values) string {
		text := fmt.Sprintf("%s %.4f", v.Metric, v.Value)
		if v.Images > 0 {
			text += " on " + delivery.Count(v.Images, "image")
		}
		if v.Confidence > 0 {
			text += fmt.Sprintf(" (at least %.4f, at most %.4f, each %s)", v.Low, v.High, sure(v))
		}
		if v.FromVersion > 0 {
			text += fmt.Sprintf("; version %d: %.4f", v.FromVersion, v.Baseline)
		}
		return text
	},

	code.ChainSigned:         fixed("signed: every gate passed"),
	code.ChainSignedAccepted: fixed("signed: every gate passed or was accepted"),
	code.ChainUnsigned:       fixed("no release statement names this bundle with this spec"),
	code.ChainGateAccepted: func(v delivery.Values) string {
		return fmt.Sprintf("gate %s was unsure, and %s accepted it (%s): %s", v.Gate, v.By, moment(v.At), v.Text)
	},
	code.ChainBaseline: func(v delivery.Values) string {
		if v.Bundle == "" {
			return "the first release"
		}
		return "compared with bundle " + v.Bundle.Short()
	},
	code.ChainWas: func(v delivery.Values) string { return "until then it was " + v.FromModel },
	code.ChainGatesAsOf: func(v delivery.Values) string {
		return fmt.Sprintf("gates as of %s %s", v.Branch, shortID(v.Commit))
	},
	code.ChainVersion:        version,
	code.ChainNoRelease:      func(v delivery.Values) string { return v.Model + " without release" },
	code.ChainFileRemoved:    func(v delivery.Values) string { return v.File + " was removed" },
	code.ChainVersionGone:    fixed("the release file was removed, or could not be read"),
	code.ChainVersionRefused: fixed("not accepted"),
	code.ChainAccepted: func(v delivery.Values) string {
		text := fmt.Sprintf("%s accepted version %d", v.Branch, v.Version)
		if len(v.Facts) > 0 {
			text += ": " + inner(v)
		}
		return text
	},
	code.ChainNotAccepted:   func(v delivery.Values) string { return v.Branch + " has not accepted it" },
	code.ChainNeverAccepted: func(v delivery.Values) string { return v.Branch + " never accepted this bundle" },
	code.ChainFellBack: func(v delivery.Values) string {
		return fmt.Sprintf("fleet %s fell back from it: %s", v.Fleet, v.Text)
	},
	code.ChainLifted: func(v delivery.Values) string {
		return fmt.Sprintf("was quarantined (%s), and lifted: %s", v.Text, v.Ask) + inFile(v)
	},
	code.ChainMustNotRun: func(v delivery.Values) string { return "must not run: " + v.Text + inFile(v) },
	code.ChainAlsoMustNotRun: func(v delivery.Values) string {
		return "another entry says that it must not run: " + v.Text + inFile(v)
	},
	code.ChainOtherEntry: fixed("another entry still quarantines it"),

	code.ChainDevice: func(v delivery.Values) string {
		text := "runs nothing yet"
		if v.Version > 0 && v.Bundle != "" {
			text = fmt.Sprintf("runs version %d", v.Version)
		} else if v.Bundle != "" {
			text = "runs bundle " + v.Bundle.Short()
		}
		text += fmt.Sprintf(" in fleet %s, %s", v.Fleet, v.Stage)
		if v.Text != "" {
			text += ", slot " + v.Text
		}
		return text
	},
	code.ChainDeviceSilent: fixed("it has been silent since this report"),
	code.ChainBundleFailed: func(v delivery.Values) string {
		if v.Text == "" {
			return fmt.Sprintf("bundle %s failed here", v.Bundle.Short())
		}
		return fmt.Sprintf("bundle %s failed here: %s", v.Bundle.Short(), v.Text)
	},
	code.ChainMoreDevices:   func(v delivery.Values) string { return fmt.Sprintf("and %d more", v.Count) },
	code.ChainDeviceRuns:    func(v delivery.Values) string { return fmt.Sprintf("%s runs %s", v.Text, version(v)) },
	code.ChainDesiredAll:    desired("every device"),
	code.ChainDesiredWave:   desired("the wave"),
	code.ChainDesiredOthers: desired("devices outside the wave"),
	code.ChainDesiredNothing: func(v delivery.Values) string {
		return fmt.Sprintf("document %d tells devices outside the wave nothing; they keep what they run", v.Count)
	},
	code.ChainDesiredOther: func(v delivery.Values) string {
		return fmt.Sprintf("the device acts on document %d", v.Count)
	},
}

func seed(v delivery.Values) string {
	return fmt.Sprintf("seed %d: mAP %.4f on validation, bundle %s", v.Seed, v.Value, v.Bundle.Short())
}

// desired says what a document tells some devices to run.
func desired(devices string) sentence {
	return func(v delivery.Values) string {
		return fmt.Sprintf("document %d says version %d of %s for %s", v.Count, v.Version, v.Model, devices)
	}
}

func inFile(v delivery.Values) string {
	if v.File == "" {
		return ""
	}
	return " (in " + v.File + ")"
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// Chain writes the sentences of a chain beside its facts.
func Chain(c explain.Chain) explain.Chain {
	c.Title = Join(c.Facts)
	links := make([]explain.Link, len(c.Links))
	for i, l := range c.Links {
		l.Text, l.Lines = Join(l.Facts), Lines(l.Details)
		if l.Verdict != nil {
			v := Told(*l.Verdict)
			l.Verdict, l.Lines = &v, append(l.Lines, verdictLines(v)...)
		}
		links[i] = l
	}
	c.Links = links
	return c
}

// ChainText writes a chain for a terminal, with digests cut short. Only words that are longer are wider than width.
func ChainText(c explain.Chain, width int) string {
	const what, id = 12, 14
	width = max(width, 60)
	var b strings.Builder
	b.WriteString(wrap(delivery.Terminal(c.Title), "", width) + "\n")
	indent := strings.Repeat(" ", what+id)
	for _, l := range c.Links {
		name := shortID(delivery.Terminal(l.ID))
		fmt.Fprintf(&b, "\n%-*s", what, delivery.Terminal(l.What))
		if n := utf8.RuneCountInString(name); n < id {
			b.WriteString(name + strings.Repeat(" ", id-n))
		} else {
			b.WriteString(name + "\n" + indent)
		}
		text := delivery.Terminal(l.Text)
		if !l.At.IsZero() {
			text += " (" + moment(l.At) + ")"
		}
		b.WriteString(wrap(text, indent, width) + "\n")
		for _, line := range l.Lines {
			b.WriteString(indent + wrap("- "+delivery.Terminal(line), indent+"  ", width) + "\n")
		}
		if len(l.Inputs) > 0 {
			from := make([]string, len(l.Inputs))
			for i, d := range l.Inputs {
				from[i] = d.Short()
			}
			b.WriteString(indent + wrap("from "+strings.Join(from, ", "), indent+"     ", width) + "\n")
		}
	}
	return b.String()
}

// shortID cuts a digest or a commit to its first 12 digits, and leaves any other name as it is.
func shortID(id string) string {
	if d, err := delivery.ParseDigest(id); err == nil {
		return d.Short()
	}
	if len(id) >= 40 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return id
}

// wrap breaks text between words so that indent and line fit into width. The first line is not indented.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	room := width - utf8.RuneCountInString(indent)
	column := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > room:
			b.WriteString("\n" + indent)
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
