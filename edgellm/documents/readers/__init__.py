"""Readers of documents, a module for each form; `choose` looks at the bytes first and at the name only then.

    for part in read(Path("manual.pdf")):
        ...

They need the extra `edgellm[docs]` for PDF and office files. All of them distrust what they read: nothing is fetched,
no script or macro runs, archives are measured before they are unpacked.
"""
