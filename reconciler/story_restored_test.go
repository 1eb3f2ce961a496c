package reconciler

import "testing"

// A restored backup knows less than its devices: they have seen newer documents, and follow no older one. Once it is
// taken over, what main says is published above those at once, also where it is what the backup had published.
func TestRestoredBackupIsPublishedAnew(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	s.merge("first")
	s.settle()
	s.copyState() // the backup
	s.propose("second", 14)
	s.settle()
	s.merge("second")
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Fatalf("devices serve %s, want version 2", got)
	}
	s.takeOver()
	s.settle()
	// Version 2 was accepted after the backup. Main's commit says so, and devices get the last release that is known.
	s.want("main", "failure", "version 2")
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s, want version 1", got)
	}
	for _, d := range s.fleet.devices {
		if have := s.fleet.published[d.Report.Ring].Version; have != d.Report.Desired {
			t.Errorf("device %s follows document %d, and %d is published", d.Report.Device, d.Report.Desired, have)
		}
	}
}
