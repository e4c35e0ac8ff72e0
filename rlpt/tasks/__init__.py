"""What is reasoned about: pure-Python task families with oracle, graded verifier and levels. One line registers one."""

from rlpt.tasks import addition as addition
from rlpt.tasks import countdown as countdown
from rlpt.tasks import graph_path as graph_path
from rlpt.tasks import reverse as reverse
from rlpt.tasks import sort as sort
