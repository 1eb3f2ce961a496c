package delivery

import (
	"fmt"
	"time"
)

// A Setup is how a forge's repository is set up for AOB.
type Setup struct {
	Settings []Setting // in the order in which they matter
	// MergeRefused says why the forge refuses to merge pull requests with AOB's commits, and what to do. It is empty if
	// the forge does not refuse, or if AOB may not read that setting.
	MergeRefused string
	Now          time.Time // the forge's clock; zero if it has none
}

// A Setting is how one setting of a forge is, and what to do about it.
type Setting struct {
	Check string // what was looked at, as "required status"
	State SettingState
	Text  string   // a sentence about how it is
	Do    string   // what to do; "" if nothing
	Fix   []string // commands for a shell that do it; none where only a person can
}

// A SettingState says how a setting is.
type SettingState string

// The states of settings.
const (
	SettingRight   SettingState = "right"
	SettingUnknown SettingState = "unknown" // AOB may not read it
	SettingRisky   SettingState = "risky"   // AOB works, and people can do what they may not mean to
	SettingUnsafe  SettingState = "unsafe"  // AOB works, and people can pass it by
	SettingWrong   SettingState = "wrong"   // AOB cannot do its work
)

// Right adds a setting that is as AOB needs it.
func (s *Setup) Right(check, format string, args ...any) {
	s.add(SettingRight, check, format, args...)
}

// Unknown adds a setting that AOB may not read.
func (s *Setup) Unknown(check, format string, args ...any) {
	s.add(SettingUnknown, check, format, args...)
}

// Wrong adds a setting without which AOB cannot do its work.
func (s *Setup) Wrong(check, format string, args ...any) *Setting {
	return s.add(SettingWrong, check, format, args...)
}

// Unsafe adds a setting that lets people pass AOB by.
func (s *Setup) Unsafe(check, format string, args ...any) *Setting {
	return s.add(SettingUnsafe, check, format, args...)
}

// Risky adds a setting that lets people do what they may not mean to.
func (s *Setup) Risky(check, format string, args ...any) *Setting {
	return s.add(SettingRisky, check, format, args...)
}

func (s *Setup) add(state SettingState, check, format string, args ...any) *Setting {
	s.Settings = append(s.Settings, Setting{Check: check, State: state, Text: fmt.Sprintf(format, args...)})
	return &s.Settings[len(s.Settings)-1]
}

// To says what to do about a setting, and with which commands.
func (f *Setting) To(do string, fix ...string) { f.Do, f.Fix = do, fix }

// Problem returns a setting as one text: what is wrong, and what to do.
func (f Setting) Problem() string {
	if f.Do == "" {
		return f.Text
	}
	return f.Text + "; " + f.Do
}

// Problems returns what keeps AOB from its work, each with what to do.
func (s Setup) Problems() (list []string) {
	for _, f := range s.Settings {
		if f.State == SettingWrong {
			list = append(list, f.Problem())
		}
	}
	return list
}
