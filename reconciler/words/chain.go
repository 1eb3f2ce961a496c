package words

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
)

const (
	seed     = "seed {seed}: mAP {value} on validation, bundle {bundle}"
	inFile   = "[ (in {file})]"
	document = "document {count} says version {version} of {model} for "
)

// The chain from a commit to a device.
var chains = map[delivery.Code]sentence{
	code.ChainPull:       text("{prs} {text}, by {by}"),
	code.ChainPullHead:   text("head of {text}, for {branch}"),
	code.ChainPullClosed: text("{prs}, no longer open: {facts}"),
	code.ChainCheck:      text("{outcome} {stage}: {facts}"),
	code.ChainHead:       text("head of {branch}[: {facts}|; it changed no release]"),
	code.ChainNotOnMain:  text("{model}: [its state on {branch} is unknown: {facts}|not on {branch}]"),
	code.ChainAuthored:   text("{text}[, by {by}]"),
	code.ChainOnBranch:   text("on {branch}"),
	code.ChainAtCommit:   text("at {commit}"),

	code.ChainContent:        text("models/{model}.yaml: dataset {dataset}; classes {names}"),
	code.ChainContentRemoved: text("models/{model}.yaml is removed"),
	code.ChainNoTraining:     text("models/{model}.yaml; no signed statement says how bundle {bundle} was trained"),
	code.ChainTrain: text("{text}, resolution {counts.pixels}, epochs {counts.epochs}, lr {number}, seed " +
		"{names}"),
	code.ChainData:       text("{dataset}[: {splits}][; {count} left out of training, as they are in an eval set]"),
	code.ChainFinding:    text("{stage} {error}: {text}"),
	code.ChainTrained:    text("trained with {text}, seed {seed}, on {by}[, {attempts} attempts][, in {lasted}]"),
	code.ChainAskedBy:    text("first asked for by {text}"),
	code.ChainSeed:       text(seed),
	code.ChainSeedBest:   text(seed + ", the best, which is the model"),
	code.ChainTraining:   text("training: {stage}[, epoch {epoch} of {total}][, attempt {attempts}]"),
	code.ChainThresholds: text("found on {evalSet}, which is not trained on, and added to bundle {bundle}"),
	code.ChainThreshold: text("{class}: from score {fromScore}[, asked for {ask}]; precision {scores.precision}, " +
		"recall {scores.recall}[; {text}]"),
	code.ChainBundle:     text("the packaged model, {MB} MB"),
	code.ChainBundleGone: text("the packaged model; the registry no longer holds it"),
	code.ChainScores:     text("on [{evalSet}, ]{images image}"),
	code.ChainFigure: text("{metric} {value}[ on {images image}][ (at least {low}, at most {high}, each {sure})][; " +
		"version {fromVersion}: {baseline}]"),

	code.ChainSigned:         text("signed: every gate passed"),
	code.ChainSignedAccepted: text("signed: every gate passed or was accepted"),
	code.ChainUnsigned:       text("AOB has signed no release of this bundle with this model file"),
	code.ChainGateAccepted:   text("gate {gate} was unsure, and {by} accepted it ({at}): {text}"),
	code.ChainBaseline:       text("[compared with bundle {bundle}|the first release]"),
	code.ChainWas:            text("until then it was {fromModel}"),
	code.ChainGatesAsOf:      text("gates as of {branch} {commit}"),
	code.ChainVersion:        text(version),
	code.ChainNoRelease:      text("{model} without release"),
	code.ChainFileRemoved:    text("{file} was removed"),
	code.ChainVersionGone:    text("the release file was removed, or could not be read"),
	code.ChainVersionRefused: text("not released"),
	code.ChainAccepted:       text("{branch} released version {version}[: {facts}]"),
	code.ChainNotAccepted:    text("{branch} has not released it"),
	code.ChainNeverAccepted:  text("{branch} never released this bundle"),
	code.ChainFellBack:       text("fleet {fleet} rolled back from it: {text}"),
	code.ChainLifted:         text("was quarantined ({text}), and lifted: {ask}" + inFile),
	code.ChainMustNotRun:     text("must not run: {text}" + inFile),
	code.ChainAlsoMustNotRun: text("another entry says that it must not run: {text}" + inFile),
	code.ChainOtherEntry:     text("another entry still quarantines it"),

	code.ChainDevice:         text("runs {installed} in fleet {fleet}, {stage}[, slot {text}]"),
	code.ChainDeviceSilent:   text("it has been silent since this report"),
	code.ChainBundleFailed:   text("bundle {bundle} failed here[: {text}]"),
	code.ChainMoreDevices:    text("and {count} more"),
	code.ChainDeviceRuns:     text("{text} runs " + version),
	code.ChainDesiredAll:     text(document + "every device"),
	code.ChainDesiredWave:    text(document + "the wave"),
	code.ChainDesiredOthers:  text(document + "devices outside the wave"),
	code.ChainDesiredNothing: text("document {count} tells devices outside the wave nothing; they keep what they run"),
	code.ChainDesiredOther:   text("the device acts on document {count}"),
}

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
