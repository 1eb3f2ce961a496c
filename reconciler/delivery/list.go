package delivery

import "slices"

// Each returns f of each element of a list.
func Each[T, U any](list []T, f func(T) U) []U {
	out := make([]U, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}

// Find returns the first element of a list for which is returns true.
func Find[T any](list []T, is func(T) bool) (found T, ok bool) {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i], true
	}
	return found, false
}

// Changed returns the names that only one of two maps has, and those whose values are not the same, sorted.
func Changed[T any](base, head map[string]T, same func(name string) bool) []string {
	var names []string
	for name := range head {
		if _, ok := base[name]; !ok || !same(name) {
			names = append(names, name)
		}
	}
	for name := range base {
		if _, ok := head[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
