// Package reconciler makes the world follow Git: it trains, judges and releases
// the models that people ask for in pull requests, and brings fleets to what
// main says.
//
// One turn of the loop is a page of prose, [Reconciler.Reconcile]:
//
//	observe  read git, the forge, runs, evidence, devices and the ledger
//	plan     decide: one pure function from what was observed to steps and reports
//	act      take the steps; each has a key, so doing it twice is doing it once
//	report   post the reports on the forge, where they differ from what stands there
//
// The loop is level-triggered: each turn observes everything again, so a lost
// webhook, a crash or an upgrade costs a turn and nothing else. A turn is due for a
// named reason, which the log shows beside each step. Nothing slow happens inside it: slow work is a
// run, a detached process that the loop starts and observes (package work is what
// happens in one).
//
// A turn waits for nobody. Package poll reads git and the forge beside it, and
// statuses, comments and pushes are sent by queues. A turn works with the last
// answers, so fleets go on while the forge hangs. Tests drive these parts
// themselves, one step at a time.
//
// The packages, from the middle outwards. imports_test.go is this list,
// executable.
//
//	delivery   the nouns, the keys, the wire documents; standard library only
//
//	intent     YAML to nouns, with every complaint at its place
//	coco       COCO detection metrics and the paired bootstrap
//	code       the facts that plan, gate and rollout decide: a code and a sentence for each
//	gate       measurements to verdicts, with facts for every check
//	rollout    how far a fleet goes with a release
//	plan       all decisions
//	explain    the chain from a commit to a device, of facts
//	words      writes facts: in statuses, in the comment on a pull request, on a terminal
//
//	durable    files that survive a crash, and locks
//	trust      ed25519 keys and signed envelopes
//
//	git        a bare mirror, read by hash, written with objects
//	forge      pull requests, statuses and comments: a local folder, Gitea
//	dataset    digest and check a dataset, make the training input
//	trainer    install the trainers of a server
//	store      files that outlive the run that made them
//	run        slow work in detached processes, with a journal
//	terraform  apply a module, and train with it
//	work       what a run does: check, train, evaluate, compare
//	detect     run models in a child process: inspect, evaluate, serve
//	artifact   bundles and what hangs on them, as OCI artifacts
//	evidence   signed statements about bundles
//	fleet      publish what devices must run, hear what they say
//	ledger     what the world cannot tell: approvals, wave clocks, what was posted
//	picture    draw what a model got wrong
//	web        the API of the commands, webhooks, metrics, pictures
//
//	turn       what the parts of a turn share: clock, troubles, when the next is due
//	queue      slow calls beside the loop, and when one that failed is tried again
//	poll       read git and the forge beside the loop
//	commits    read what commits say
//	history    what main has held: releases, quarantine, lost gates
//	pulls      read pull requests, and what merging them would yield
//	post       post statuses and comments, and remember what stands on the forge
//	archive    what is signed, as plans read it; check the store for lost files
//	view       the answers to the commands
//
//	edge       the same loop on a device
//	onnx       ONNX Runtime, the only cgo, in aob-detect alone
package reconciler
