"""Compares strategies on labelled reports, as a study would: measures, intervals, error anatomy, gates. Stays inside.

`labelled_set` reads, `strategies` predict, `measures` count, `error_anatomy` explains, `evaluating` runs it all,
`evaluation_files` and `report_page` write, `gates` and `requalifying` judge.
"""
