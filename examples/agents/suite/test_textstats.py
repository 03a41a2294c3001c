import unittest

import textstats


class Words(unittest.TestCase):
    def test_case_does_not_matter(self):
        self.assertEqual(textstats.words("A pool, a Pool!"), ["a", "pool", "a", "pool"])

    def test_an_empty_text_has_none(self):
        self.assertEqual(textstats.words(""), [])

    def test_an_apostrophe_stays_inside_its_word(self):
        # Fails: textstats.words() makes two of it. It is the defect that the tester is there to find.
        self.assertEqual(textstats.words("It doesn't leak."), ["it", "doesn't", "leak"])


class Sentences(unittest.TestCase):
    def test_marks_end_them(self):
        self.assertEqual(textstats.sentences("One. Two! Three?"), ["One", "Two", "Three"])

    def test_several_marks_end_one(self):
        self.assertEqual(textstats.sentences("What?! Yes..."), ["What", "Yes"])

    def test_mean_length(self):
        self.assertEqual(textstats.mean_sentence_length("One two. Three four five six."), 3)

    def test_mean_length_of_nothing(self):
        self.assertEqual(textstats.mean_sentence_length(""), 0)


class MostCommon(unittest.TestCase):
    def test_by_frequency(self):
        self.assertEqual(textstats.most_common("warm cold warm"), [("warm", 2)])

    def test_ties_go_by_the_alphabet(self):
        self.assertEqual(textstats.most_common("b a b a c", 2), [("a", 2), ("b", 2)])
