// Package terraform applies AOB's Terraform modules, and trains with them.
//
// A [Module] is applied in a folder of its own, once, as a [Stack]: init, plan to
// a file, a check of that plan against the module's [Policy], apply of that very
// file, and destroy at the end. Terraform gets an explicit environment, downloads
// nothing that the module does not name, and is interrupted, not killed, when a
// context ends. A stack belongs to one goroutine.
//
// A [Trainer] trains through a module, on a [Machine]: [Trainer.Train] launches a
// training, watches it, and leaves nothing running, whatever happened before. It
// expects to be the only one at work in the run's folder; the run's lock says so.
//
// # The trainer's process
//
// Terraform only launches and ends it, so that applying takes a second. The
// module's two commands are "aob launch start" and "aob launch stop", which call
// [Launch] in the attempt's folder. Launched, the trainer is detached: in its own
// session, with the environment of launch.json and no other. It holds the lock on
// trainer.lock from before its first instruction until it and all processes that
// inherited the lock are gone, so the kernel answers whether it is alive.
//
// Anything here can be killed at any moment. Terraform dies with its runner; the
// launcher may live on a little and the trainer for hours. Therefore an attempt
// is ended in this order: its folder is fenced by ended.json, after which no
// late launcher starts anything in it; the stack is destroyed; every process that
// carries the attempt's mark in its environment is ended, until the lock is free;
// and settled.json says so. A process is only ever signalled after its start time
// was compared, so that one which got a freed process id is safe.
package terraform
