package main

import (
	"regexp"
	"strings"
)

// hidden stands in a message for what may be a password.
const hidden = "***"

var (
	userInfo  = regexp.MustCompile(`://[^\s"'@]*:[^\s"'@]*@`)
	query     = regexp.MustCompile(`((?:zks?|etcds?)://[^\s"'?]*\?)[^\s"']+`)
	serverURL = regexp.MustCompile(`^(-[^=]*=)?(zks?|etcds?):`)
)

// hideSecrets returns the text without the passwords of URLs, which zkq does not
// take and people give all the same: an error repeats arguments, and may end in a
// log.
func hideSecrets(text string) string {
	return query.ReplaceAllString(userInfo.ReplaceAllString(text, "://"+hidden+"@"), "${1}"+hidden)
}

// hideQuery returns a word without what follows the ? of a coordinator's URL:
// people write passwords there, as other URLs have them.
func hideQuery(word string) string {
	if !serverURL.MatchString(word) {
		return word
	}
	return cutQuery(word)
}

func cutQuery(url string) string {
	before, _, found := strings.Cut(url, "?")
	if !found {
		return url
	}
	return before + "?" + hidden
}

// hideCoordinator returns a command line whose coordinator is shown without what
// follows a ?, whatever its scheme.
func hideCoordinator(words []string) []string {
	shown := make([]string, len(words))
	for i, w := range words {
		name, _, inline := strings.Cut(strings.TrimLeft(w, "-"), "=")
		isFlag := flagLike(w) && (name == "c" || name == "coordinator")
		behind := i > 0 && (words[i-1] == "-c" || strings.TrimLeft(words[i-1], "-") == "coordinator" && flagLike(words[i-1]))
		if isFlag && inline || behind {
			w = cutQuery(w)
		}
		shown[i] = w
	}
	return shown
}
