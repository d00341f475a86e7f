package main

import (
	"regexp"
	"strings"
)

// hiddenText replaces text in a message that may be a password.
const hiddenText = "***"

// A new scheme must be added to queryPattern and serverURLPattern. Otherwise messages show
// a password in its query. userInfoPattern matches URLs of all schemes.
var (
	userInfoPattern  = regexp.MustCompile(`://[^\s"'@]*:[^\s"'@]*@`)
	queryPattern     = regexp.MustCompile(`((?:zks?|etcds?)://[^\s"'?]*\?)[^\s"']+`)
	serverURLPattern = regexp.MustCompile(`^(-[^=]*=)?(zks?|etcds?):`)
)

// hideSecrets returns the text with the passwords in URLs hidden. zkq takes no password
// from a URL, but users write them there. An error repeats arguments, and logs keep
// errors.
func hideSecrets(text string) string {
	return queryPattern.ReplaceAllString(userInfoPattern.ReplaceAllString(text, "://"+hiddenText+"@"), "${1}"+hiddenText)
}

// hideQuery hides the query of a word that is a coordinator's URL or a flag with one.
// Users write passwords there, as in URLs of other programs.
func hideQuery(word string) string {
	if !serverURLPattern.MatchString(word) {
		return word
	}
	return cutQuery(word)
}

// cutQuery hides everything after the first ? of a URL.
func cutQuery(url string) string {
	before, _, found := strings.Cut(url, "?")
	if !found {
		return url
	}
	return before + "?" + hiddenText
}

// hideCoordinator returns a command line in which the query of the coordinator's URL is
// hidden, even if the scheme is unknown.
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
