//! Citations as large as PubMed's (about 10 kB each, 7 kB without abstract), for measurements.

use std::io::{self, Write};

/// Writes a `PubmedArticleSet` of `count` citations; of those after the first `abstracts` there is only a title.
pub fn write_citations(out: &mut impl Write, count: usize, abstracts: usize) -> io::Result<()> {
    writeln!(out, "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PubmedArticleSet>")?;
    let sentence =
        "Expression of <i>BRCA1</i> fell from 10<sup>-3</sup> to 0.5 &#xb5;M (<i>P</i> &lt; 0.05) in MCF-7 cells. ";
    for n in 0..count {
        write!(
            out,
            "<PubmedArticle><MedlineCitation Status=\"MEDLINE\" Owner=\"NLM\"><PMID Version=\"1\">{}</PMID>\
             <DateRevised><Year>2024</Year><Month>11</Month><Day>05</Day></DateRevised><Article PubModel=\"Print\"><Journal>\
             <JournalIssue CitedMedium=\"Internet\"><PubDate><Year>2024</Year><Month>Mar</Month></PubDate></JournalIssue>\
             <Title>Journal of Invented Results</Title></Journal><ArticleTitle>Study {n} of <i>BRCA1</i>.</ArticleTitle>",
            n + 1,
        )?;
        if n < abstracts {
            let text = sentence.repeat(24);
            write!(
                out,
                "<Abstract><AbstractText Label=\"RESULTS\" NlmCategory=\"RESULTS\">{text}</AbstractText></Abstract>"
            )?;
        }
        write!(out, "<AuthorList>")?;
        for author in 0..6 {
            write!(
                out,
                "<Author ValidYN=\"Y\"><LastName>Doe</LastName><ForeName>J {author}</ForeName><Initials>J</Initials>\
                 <AffiliationInfo><Affiliation>Department of Inventions, University of Nowhere, Nowhere.</Affiliation>\
                 </AffiliationInfo></Author>"
            )?;
        }
        write!(out, "</AuthorList><Language>eng</Language></Article><MeshHeadingList>")?;
        for heading in 0..10 {
            write!(
                out,
                "<MeshHeading><DescriptorName UI=\"D{heading:06}\" MajorTopicYN=\"N\">Descriptor {heading}</DescriptorName>\
                 <QualifierName UI=\"Q000235\" MajorTopicYN=\"Y\">genetics</QualifierName></MeshHeading>"
            )?;
        }
        write!(out, "</MeshHeadingList></MedlineCitation><PubmedData><ReferenceList>")?;
        for reference in 0..20 {
            write!(
                out,
                "<Reference><Citation>Doe J. An invented reference. J Inv Res. 2001;1(2):3-4.</Citation><ArticleIdList>\
                 <ArticleId IdType=\"pubmed\">{reference}</ArticleId></ArticleIdList></Reference>"
            )?;
        }
        writeln!(out, "</ReferenceList></PubmedData></PubmedArticle>")?;
    }
    writeln!(out, "</PubmedArticleSet>")
}
