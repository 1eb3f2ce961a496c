package delivery

import (
	"errors"
	"fmt"
	"strings"
)

// Unreadable is the error of a list of which some could not be read. The others are returned beside it, and are good.
type Unreadable []Unread

// Usable reports whether a list can be used that came with err: all of it was read, or all but what err names.
func Usable(err error) bool {
	_, some := errors.AsType[Unreadable](err)
	return err == nil || some
}

// Unread is one that could not be read.
type Unread struct {
	What string // which one
	Why  string
}

// maxUnread is how many are named in one message.
const maxUnread = 5

func (u Unreadable) Error() string {
	words := make([]string, 0, maxUnread+1)
	for i, one := range u {
		if i == maxUnread {
			words = append(words, fmt.Sprintf("and %d more", len(u)-maxUnread))
			break
		}
		words = append(words, one.What+": "+one.Why)
	}
	return strings.Join(words, "; ")
}
