//! The topic on real servers: the rules that the scripted ones are held to.

use millpond_tests::every_topic_rule;
use millpond_tests::topic_rules::Servers;

every_topic_rule!(Servers::real);
