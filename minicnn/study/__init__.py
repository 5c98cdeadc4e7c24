"""The claims of the papers as experiments: `python -m minicnn.study`.

claim       how a claim is declared: arms, figures, what would make it hold; each is a file in `claims/`
training    an arm that is trained, by minicnn.train; `probes` are what is measured on the network that comes out
networks    the networks that only studies train: one whose activation, normalisation and shortcuts can be exchanged
engine      arms × seeds, each one result file: what is finished is not done again
statistics  paired differences, their interval, and the verdict that follows from it
report      a claim's results as a page; `page` and `chart` write Markdown, HTML and SVG
index       the table of all verdicts
__main__    the command
"""
